"""What is predicted of every request, made before the simulation and the same under every policy.

A prediction of a request that has generated a tokens is made from the hidden state of its token a, hence
known when it has generated a + 1. Predictions are made at ages 0, K, 2K, ...; between them they are counted
down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trail.policy.gittins import gittins_index
from trail.simulation.engine.workload import Workload

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Predicted tokens of `n` requests. `refined` holds those of request i at age j K at `first[i] + j`.

    `initial` [n] is the prediction of the whole length before the request runs. `gittins_initial` [n] and
    `gittins` (as `refined`) are indices of what is left, NaN where there is no distribution.
    """

    every: int
    initial: Floats
    first: NDArray[np.int64]
    refined: NDArray[np.float32]
    gittins_initial: Floats
    gittins: NDArray[np.float32]

    def errors(self, output_tokens: NDArray[np.int64]) -> dict[str, float | int]:
        """Mean absolute errors in tokens, as `trail bench` states them."""
        remaining = _remaining(output_tokens, self.every)
        counts = _counts(output_tokens, self.every)
        age = np.repeat(output_tokens, counts) - remaining
        countdown = np.repeat(self.initial, counts) - age
        return {
            "requests": len(output_tokens),
            "predictions": len(remaining),
            "initial_mae_tokens": float(np.abs(self.initial - output_tokens).mean()),
            "refined_mae_tokens": float(np.abs(self.refined - remaining).mean()),
            "countdown_mae_tokens": float(np.abs(countdown - remaining).mean()),
        }


class Predictor(Protocol):
    """Something that predicts lengths; `text` names it in results."""

    @property
    def text(self) -> str:
        """Name and parameters."""

    def predict(self, work: Workload, every: int, rng: np.random.Generator) -> Predictions:
        """Predictions every `every` tokens of all requests of `work`."""


def _counts(output_tokens: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    return (output_tokens - 1) // every + 1


def _first(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)[:-1]))


def _remaining(output_tokens: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    """The truth at every age at which a prediction is made, request after request."""
    counts = _counts(output_tokens, every)
    step = np.arange(int(counts.sum())) - np.repeat(_first(counts), counts)
    remaining: NDArray[np.int64] = np.repeat(output_tokens, counts) - step * every
    return remaining


def autocorrelated(
    counts: NDArray[np.int64], correlation: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Standard normal numbers, `counts[i]` of them for request i, one request after another.

    Successive ones of a request have the given correlation: x_0 ~ N(0, 1),
    x_j = correlation x_(j-1) + sqrt(1 - correlation^2) N(0, 1).
    """
    longest_first = np.argsort(-counts, kind="stable")
    first, sorted_counts = _first(counts)[longest_first], counts[longest_first]
    noise = np.empty(int(counts.sum()), np.float32)
    x = rng.standard_normal(len(counts))
    own = math.sqrt(1.0 - correlation**2)
    active = len(counts)
    for j in range(int(sorted_counts[0])):
        active = int(np.searchsorted(-sorted_counts[:active], -j, side="left"))
        x = x[:active]
        if j:
            x = correlation * x + own * rng.standard_normal(active)
        noise[first[:active] + j] = x
    return noise


@dataclass(frozen=True)
class Exact:
    """Every length is known."""

    text: str = "exact"

    def predict(self, work: Workload, every: int, rng: np.random.Generator) -> Predictions:  # noqa: ARG002
        """The truth; it is its own Gittins index."""
        output = work.output_tokens
        refined = _remaining(output, every).astype(np.float32)
        initial = output.astype(np.float64)
        return Predictions(every, initial, _first(_counts(output, every)), refined, initial, refined)


@dataclass(frozen=True)
class Lognormal:
    """Length times exp(sigma x), x standard normal: the median prediction is right.

    `sigma_initial` is the spread of the initial prediction's logarithm, `sigma` that of refined ones, whose
    errors along a request have the autocorrelation `correlation` from one prediction to the next. Raises
    ValueError for values out of range.
    """

    sigma_initial: float = 0.6
    sigma: float = 0.4
    correlation: float = 0.9

    def __post_init__(self) -> None:
        if not (0 <= self.sigma_initial < math.inf and 0 <= self.sigma < math.inf):
            raise ValueError(f"the sigmas must not be negative, got {self.sigma_initial} and {self.sigma}")
        if not 0 <= self.correlation <= 1:
            raise ValueError(f"the correlation must lie in [0, 1], got {self.correlation}")

    @property
    def text(self) -> str:
        """As it is written on the command line."""
        return f"lognormal:{self.sigma_initial:g},{self.sigma:g},{self.correlation:g}"

    def predict(self, work: Workload, every: int, rng: np.random.Generator) -> Predictions:
        """Predictions with lognormal errors.

        Where no length is likelier than another to begin with, what is left is lognormal around the
        prediction with the same sigma: its Gittins index is the prediction times a constant.
        """
        output = work.output_tokens
        counts = _counts(output, every)
        initial = output * np.exp(self.sigma_initial * rng.standard_normal(len(output)))
        noise = autocorrelated(counts, self.correlation, rng)
        refined = (_remaining(output, every) * np.exp(self.sigma * noise)).astype(np.float32)
        return Predictions(
            every,
            initial,
            _first(counts),
            refined,
            initial * _lognormal_index(self.sigma_initial),
            refined * np.float32(_lognormal_index(self.sigma)),
        )


def _lognormal_index(sigma: float, bins: int = 400) -> float:
    """Gittins index of exp(sigma x)."""
    if sigma == 0:
        return 1.0
    z = np.linspace(-6.0, 6.0, bins + 1)
    below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    return float(gittins_index(np.diff(below)[None, :], np.exp(sigma * z))[0])


@dataclass(frozen=True)
class Confusion:
    """A classifier by its measured confusion matrices, rows the true bin, columns how often each was said.

    `edges` [k + 1] ascend in tokens; lengths beyond an end belong to the bin there. `initial` and `refined`
    [k, k] are counts or shares for the whole length before a request runs, and for what remains. What is
    said is the midpoint of a bin drawn from the true bin's row; along a request the draws have the
    autocorrelation `correlation` (a Gaussian copula). Raises ValueError where shapes do not fit or a row is
    empty.
    """

    edges: tuple[float, ...]
    initial: tuple[tuple[float, ...], ...]
    refined: tuple[tuple[float, ...], ...]
    correlation: float = 0.9
    name: str = "confusion"

    def __post_init__(self) -> None:
        k = len(self.edges) - 1
        if k < 1 or any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"{self.name}: the edges of bins must ascend, got {list(self.edges)}")
        if not 0 <= self.correlation <= 1:
            raise ValueError(f"{self.name}: the correlation must lie in [0, 1], got {self.correlation}")
        for which in ("initial", "refined"):
            matrix = getattr(self, which)
            if len(matrix) != k or any(len(row) != k for row in matrix):
                raise ValueError(f"{self.name}: {which} must be {k} rows of {k} numbers, as there are bins")
            for i, row in enumerate(matrix):
                if min(row) < 0 or not 0 < sum(row) < math.inf:
                    raise ValueError(
                        f"{self.name}: row {i} of {which} holds no shares; measure on more answers"
                    )

    @property
    def text(self) -> str:
        """Name and number of bins."""
        return f"{self.name} ({len(self.edges) - 1} bins)"

    def predict(self, work: Workload, every: int, rng: np.random.Generator) -> Predictions:
        """Predictions drawn from the matrices."""
        output = work.output_tokens
        counts = _counts(output, every)
        noise = autocorrelated(counts, self.correlation, rng)
        said0, index0 = self._draw(self.initial, output, rng.standard_normal(len(output)))
        said, index = self._draw(self.refined, _remaining(output, every), noise)
        return Predictions(
            every, said0, _first(counts), said.astype(np.float32), index0, index.astype(np.float32)
        )

    def _draw(
        self, matrix: Sequence[Sequence[float]], truth: NDArray[np.int64], normal: NDArray[np.floating]
    ) -> tuple[Floats, Floats]:
        """Said length and Gittins index [n] for true lengths [n]."""
        edges = np.asarray(self.edges, np.float64)
        k = len(edges) - 1
        shares = np.asarray(matrix, np.float64)
        shares = shares / shares.sum(axis=1, keepdims=True)
        true_bin = np.clip(np.searchsorted(edges, truth, side="right") - 1, 0, k - 1)
        bounds = np.cumsum(shares, axis=1)[:, :-1]
        u = _normal_cdf(normal)
        said = np.zeros(len(truth), np.int64)
        for i in range(k):
            rows = true_bin == i
            said[rows] = np.searchsorted(bounds[i], u[rows], side="right")
        # What a said bin means: how often each true bin is behind it, in this workload.
        weight = np.bincount(true_bin, minlength=k)[:, None] * shares
        behind = np.where(weight.sum(axis=0) > 0, weight, 1.0).T
        return ((edges[1:] + edges[:-1]) / 2)[said], gittins_index(behind, edges)[said]


def _normal_cdf(x: NDArray[np.floating]) -> Floats:
    from scipy.special import ndtr

    cdf: Floats = ndtr(x.astype(np.float64))
    return cdf


@dataclass(frozen=True)
class Recorded:
    """Predictions that were recorded along answers of a real model (`read_recorded`).

    A simulated request takes those of an answer of about its own length, stretched to it: at age a what was
    said at the same share of the answer. `output_tokens` [m] ascends; `initial` [m], `refined` and `gittins`
    as in `Predictions`, every `every` tokens.
    """

    name: str
    every: int
    output_tokens: NDArray[np.int64]
    initial: Floats
    refined: NDArray[np.float32]
    gittins: NDArray[np.float32]
    neighbours: int = 16

    @property
    def text(self) -> str:
        """Name and number of answers."""
        return f"{self.name} ({len(self.output_tokens)} answers)"

    def predict(self, work: Workload, every: int, rng: np.random.Generator) -> Predictions:
        """Predictions of recorded answers of like length."""
        output, own = work.output_tokens, self.output_tokens
        near = np.searchsorted(own, output) + rng.integers(
            -self.neighbours // 2, self.neighbours // 2, len(output)
        )
        answer = np.clip(near, 0, len(own) - 1)
        stretch = output / own[answer]
        counts, own_counts = _counts(output, every), _counts(own, self.every)
        which = np.repeat(np.arange(len(output)), counts)
        age = np.repeat(output, counts) - _remaining(output, every)
        place = np.rint(age / stretch[which] / self.every).astype(np.int64)
        row = _first(own_counts)[answer[which]] + np.clip(place, 0, own_counts[answer[which]] - 1)
        factor = stretch[which].astype(np.float32)
        initial = self.initial[answer] * stretch
        nothing = np.full(len(output), np.nan)
        return Predictions(
            every, initial, _first(counts), self.refined[row] * factor, nothing, self.gittins[row] * factor
        )
