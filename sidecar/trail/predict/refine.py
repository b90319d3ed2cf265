"""Refinement of per-step predictions: the Bayesian filter of TRAIL (arXiv 2410.01035, section 3).

A request with remaining length L has remaining length L - 1 one token later. Within bins that is a
Markov chain: a bin of width w is left downwards with probability 1 / w, the lowest bin absorbs. Each
step predicts with that chain and corrects with the probe's output p:

    q_0 = p_0,    prior_t = T q_{t-1},    q_t(i) proportional to prior_t(i) p_t(i)
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins

_CACHED_POWERS = 1024


class Refiner:
    """The filter over a batch of requests; keeps no state of theirs.

    Distributions are float64 [n, k], one row a request, and sum to 1. No result is ever NaN: see
    `start` and `step` for what happens to unusable evidence.
    """

    def __init__(self, bins: Bins) -> None:
        self.bins = bins
        self._power = lru_cache(maxsize=_CACHED_POWERS)(self._compute_power)

    def transition(self, steps: int = 1) -> npt.NDArray[np.float64]:
        """T to the power of `steps`, float64 [k, k], read-only; column j is where bin j's mass goes."""
        if steps < 0:
            raise ValueError(f"a request cannot be moved back, got steps = {steps}")
        return self._power(steps)

    def start(self, p0: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """q_0 = p_0, normalised. A row that is no distribution (NaN, all zero) becomes uniform."""
        p, usable = self._evidence(p0)
        p[~usable] = 1.0 / self.bins.k
        return p

    def advance(self, q: npt.ArrayLike, steps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """T^steps q, float64 [n, k]: what is believed `steps` tokens later, without evidence.

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
        joint = prior * evidence
        total = joint.sum(axis=1)
        agreeing = total > 0
        posterior = np.where(usable[:, None], evidence, prior)
        posterior[agreeing] = joint[agreeing] / total[agreeing, None]
        return posterior

    def expected(self, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Predicted remaining length in tokens, float64 [n]: sum over bins of q(i) midpoint(i)."""
        return self._distributions(q) @ self.bins.midpoints

    def _compute_power(self, steps: int) -> npt.NDArray[np.float64]:
        leave = 1.0 / self.bins.widths
        leave[0] = 0.0
        transition = np.diag(1.0 - leave) + np.diag(leave[1:], k=1)
        power: npt.NDArray[np.float64] = np.linalg.matrix_power(transition, steps)
        power.setflags(write=False)
        return power

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
