"""From the probe's output at single steps to one prediction that follows a request.

A request with remaining length L has remaining length L - 1 one token later. What is believed of it is moved
down by the tokens that passed and joined with the probe's newest output p, in one of two ways:

*bayes*, TRAIL (arXiv 2410.01035, section 3): within bins the move is a Markov chain, a bin of width w is left
downwards with probability 1 / w and the lowest bin absorbs; the join multiplies:

    q_0 = p_0,    prior_t = T q_{t-1},    q_t(i) proportional to prior_t(i) p_t(i)

Outputs of successive steps say much the same, and multiplying counts it again every time: q becomes far too
narrow.

*pool*: the move shifts each bin's mass, evenly spread, by exactly the tokens that passed; the join weighs
both by how much older evidence is still worth and how much of an output is new:

    q_t(i) proportional to prior_t(i)^m p_t(i)^(1 - m + n m),    m = 2^(-1 / half-life)

With novelty n = 0 it is the geometric mean, whose weights sum to 1, which counts shared evidence once; with
n = 1 every output counts in full, and with m = 1 as well the join is the product again. The half-life counts
predictions, not tokens: where they come seldom, each is worth remembering for longer.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.quantiles import median

_CACHED_POWERS = 1024
_TINY = 1e-9
"""Stands for 0 in logarithms: the pool must not exclude for ever what one step thought impossible."""

FILTERS = ("bayes", "pool")
POINTS = ("mean", "median")


@dataclass(frozen=True)
class Decoding:
    """How a posterior is kept and read. The default is the paper's.

    `half_life` (predictions, of the pool) is how fast older evidence fades; 0 forgets it at once. `novelty`
    (of the pool, 0 to 1) is the share of an output that counts as evidence beside the older. What is read is
    the posterior to the power of `sharpness`, normalised: below 1 makes it wider. `point` says which number
    stands for the distribution: its mean over the bins' midpoints, or its median.
    Raises ValueError for anything else.
    """

    filter: str = "bayes"
    half_life: float = 0.0
    sharpness: float = 1.0
    point: str = "mean"
    novelty: float = 0.0

    def __post_init__(self) -> None:
        if self.filter not in FILTERS or self.point not in POINTS:
            raise ValueError(
                f"the filter is one of {', '.join(FILTERS)} and the point one of {', '.join(POINTS)}, got"
                f" {self.filter!r} and {self.point!r}"
            )
        if not (0 <= self.half_life < float("inf") and 0 < self.sharpness < float("inf")):
            raise ValueError(
                f"half_life must be at least 0 and sharpness positive, got {self.half_life} and"
                f" {self.sharpness}"
            )
        if not 0 <= self.novelty <= 1:
            raise ValueError(f"novelty must be from 0 to 1, got {self.novelty}")

    def to_json(self) -> dict[str, Any]:
        """As it stands in `trail.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Decoding":
        """What `to_json` gave; novelty is 0 where it is missing, as in artefacts of format version 2.

        Raises ValueError for other missing, unknown or wrong fields.
        """
        fields = {"novelty": 0.0, **values}
        if set(fields) != {"filter", "half_life", "sharpness", "point", "novelty"}:
            raise ValueError(
                f"decoding must hold filter, half_life, sharpness, point and novelty, got {sorted(values)}"
            )
        for name in ("half_life", "sharpness", "novelty"):
            if type(fields[name]) not in (int, float):
                raise ValueError(f"{name} must be a number, got {fields[name]!r}")
        return cls(
            filter=str(fields["filter"]),
            half_life=float(fields["half_life"]),
            sharpness=float(fields["sharpness"]),
            point=str(fields["point"]),
            novelty=float(fields["novelty"]),
        )


PAPER = Decoding()


class Refiner:
    """The filter over a batch of requests; keeps no state of theirs.

    Distributions are float64 [n, k], one row a request, and sum to 1. No result is ever NaN: see
    `start` and `step` for what happens to unusable evidence.
    """

    def __init__(self, bins: Bins, decoding: Decoding = PAPER) -> None:
        self.bins = bins
        self.decoding = decoding
        compute = self._shift if decoding.filter == "pool" else self._power
        self._moves = lru_cache(maxsize=_CACHED_POWERS)(compute)

    def transition(self, steps: int = 1) -> npt.NDArray[np.float64]:
        """The move by `steps` tokens, float64 [k, k], read-only; column j is where bin j's mass goes."""
        if steps < 0:
            raise ValueError(f"a request cannot be moved back, got steps = {steps}")
        return self._moves(steps)

    def start(self, p0: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """q_0 = p_0, normalised. A row that is no distribution (NaN, all zero) becomes uniform."""
        p, usable = self._evidence(p0)
        p[~usable] = 1.0 / self.bins.k
        return p

    def advance(self, q: npt.ArrayLike, steps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What is believed `steps` tokens later without evidence, float64 [n, k].

        `steps` is a scalar or int [n], each at least 0.
        """
        rows = self._distributions(q)
        counts = np.broadcast_to(np.asarray(steps, dtype=np.int64), (len(rows),))
        prior = np.empty_like(rows)
        for count in np.unique(counts):
            chosen = counts == count
            prior[chosen] = rows[chosen] @ self.transition(int(count)).T
        return prior

    def step(self, q: npt.ArrayLike, p: npt.ArrayLike, steps: npt.ArrayLike = 1) -> npt.NDArray[np.float64]:
        """Posterior float64 [n, k] from `q` of `steps` tokens ago and the probe's output `p` [n, k].

        `steps` is a scalar or int [n]; predicting every K tokens means K. Where prior and evidence
        exclude each other (their product sums to 0) the evidence alone is believed; where the evidence
        is no distribution (NaN, negative, all zero) the prior is.
        """
        prior = self.advance(q, steps)
        evidence, usable = self._evidence(p)
        if evidence.shape != prior.shape:
            raise ValueError(f"q is {prior.shape} and p is {evidence.shape}; both must be [n, {self.bins.k}]")
        joint = self._pooled(prior, evidence) if self.decoding.filter == "pool" else prior * evidence
        total = joint.sum(axis=1)
        agreeing = usable & (total > 0)
        posterior = np.where(usable[:, None], evidence, prior)
        posterior[agreeing] = joint[agreeing] / total[agreeing, None]
        return posterior

    def read(self, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The distribution of the remaining length that the posterior `q` stands for, float64 [n, k]."""
        rows = self._distributions(q)
        if self.decoding.sharpness == 1.0:
            return rows
        return _normalised(self.decoding.sharpness * np.log(rows + _TINY))

    def tokens(self, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Predicted remaining length in tokens, float64 [n], of the posterior `q`."""
        return self.point(self.read(q))

    def point(self, distribution: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The length in tokens that stands for a distribution as it is, float64 [n]: the paper's sum of
        p(i) midpoint(i), or the median. A prompt predictor's output is one, and so is what `read` gave."""
        p = self._distributions(distribution)
        return median(p, self.bins) if self.decoding.point == "median" else p @ self.bins.midpoints

    def _pooled(
        self, prior: npt.NDArray[np.float64], evidence: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        half_life = self.decoding.half_life
        memory = 2.0 ** (-1.0 / half_life) if half_life > 0 else 0.0
        weight = 1 - memory + self.decoding.novelty * memory
        return _normalised(memory * np.log(prior + _TINY) + weight * np.log(evidence + _TINY))

    def _power(self, steps: int) -> npt.NDArray[np.float64]:
        leave = 1.0 / self.bins.widths
        leave[0] = 0.0
        transition = np.diag(1.0 - leave) + np.diag(leave[1:], k=1)
        power: npt.NDArray[np.float64] = np.linalg.matrix_power(transition, steps)
        power.setflags(write=False)
        return power

    def _shift(self, steps: int) -> npt.NDArray[np.float64]:
        edges = np.asarray(self.bins.edges, dtype=np.float64)
        low, high = edges[:-1], edges[1:]
        # Overlap of source bin j, moved down, with target bin i; what falls below 0 stays in the lowest bin.
        overlap = np.minimum(high[None, :] - steps, high[:, None]) - np.maximum(
            low[None, :] - steps, low[:, None]
        )
        shift: npt.NDArray[np.float64] = np.clip(overlap, 0.0, None) / self.bins.widths[None, :]
        shift[0] += 1.0 - shift.sum(axis=0)
        shift.setflags(write=False)
        return shift

    def _distributions(self, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
        rows = np.asarray(q, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.bins.k:
            raise ValueError(f"expected distributions of shape [n, {self.bins.k}], got {list(rows.shape)}")
        return rows

    def _evidence(self, p: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Rows normalised where they can be and 0 elsewhere, and which could."""
        rows = self._distributions(p).copy()
        with np.errstate(invalid="ignore", over="ignore"):  # unusable rows are what is looked for
            total = rows.sum(axis=1)
        usable = np.isfinite(total) & (total > 0) & np.all(rows >= 0, axis=1)
        rows[usable] /= total[usable, None]
        rows[~usable] = 0.0
        return rows, usable


def _normalised(logarithms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(logarithms - logarithms.max(axis=1, keepdims=True, initial=-np.inf))
    result: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return result
