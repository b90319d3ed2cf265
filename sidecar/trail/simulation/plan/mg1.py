"""Mean response times in the M/G/1 queue: shortest predicted remaining first with limited preemption.

Poisson arrivals at rate lambda, one server that works at rate 1, independent pairs of size x and prediction
r with joint density g. A request of age a (service received) has rank r - a, smaller first; from age c r on
it is protected: it is served to its end. A request that was never served has rank r. Equal ranks are served
in order of arrival, and only a strictly smaller rank preempts. With rho(r) the load of predictions up to r
included, rho(r-) that of smaller ones, and b(t) = min(t - r, c t), TRAIL's analysis (arXiv 2410.01035, SOAP)
gives

    E[T(x, r)] = lambda (I1 + I2) / (2 (1 - rho(r)) (1 - rho(r-))) + R
    I1 = integral over y <= r of x^2 g(x, y)
    I2 = integral over t > r and x > b(t) of (x - b(t))^2 g(x, t)
    R  = integral from 0 to min(c r, x) of da / (1 - rho(max(r - a, 0))) + max(x - c r, 0)

Where predictions are the bins of a classifier, many are equal and rho(r-) differs from rho(r): squaring one
of them instead is wrong there.

c = 0 is non-preemptive shortest predicted job first, which is also the limit of c -> 0: b(t) = 0 and R = x.
c = 1 is SPRPT with every preemption allowed. So is any larger c: past its prediction a request has rank 0,
and nothing has a smaller one. With exact predictions c = 1 is SRPT; with one prediction for all, every c is
FCFS.

Sizes, predictions and times have one unit, whichever: with sizes in seconds of service, times are seconds.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MOST_DEVIATIONS = 5.0


@dataclass(frozen=True)
class JointLaw:
    """Joint distribution of size and prediction: n weighted pairs, float64 [n] each.

    Sizes are positive, predictions not negative, weights positive with sum 1; `joint_law` makes one from
    weights of any scale.
    """

    size: Floats
    prediction: Floats
    weight: Floats

    @property
    def mean_size(self) -> float:
        """E[X]."""
        return float(self.weight @ self.size)

    @property
    def second_moment(self) -> float:
        """E[X^2]."""
        return float(self.weight @ self.size**2)

    def mean(self, values: Floats) -> float:
        """Expectation of a quantity given for every pair, float64 [n]."""
        return float(self.weight @ values)

    def rate(self, load: float) -> float:
        """The arrival rate at which a server of rate 1 has this load."""
        return load / self.mean_size


def joint_law(size: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> JointLaw:
    """Pairs [n] with weights [n] (equal by default), normalised; pairs without weight are left out.

    Raises ValueError for arrays that do not fit together and values out of range.
    """
    x, r = np.asarray(size, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not (x.ndim == r.ndim == w.ndim == 1 and len(x) == len(r) == len(w)):
        raise ValueError(
            f"sizes, predictions and weights must be [n] each, got {x.shape}, {r.shape}, {w.shape}"
        )
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError("weights must be finite, not negative and not all 0")
    kept = w > 0
    x, r, w = x[kept], r[kept], w[kept]
    if not (np.isfinite(x).all() and (x > 0).all()):
        raise ValueError("sizes must be finite and positive")
    if not (np.isfinite(r).all() and (r >= 0).all()):
        raise ValueError("predictions must be finite and not negative")
    return JointLaw(x, r, w / w.sum())


def exact_law(size: ArrayLike, weight: ArrayLike | None = None) -> JointLaw:
    """Sizes [n] that are known: every prediction is the size. Raises ValueError as `joint_law` does."""
    x, w = _distinct(size, weight)
    return joint_law(x, x, w)


def lognormal_law(
    size: ArrayLike, sigma: float, weight: ArrayLike | None = None, *, points: int = 64
) -> JointLaw:
    """Predictions off by a lognormal factor exp(sigma z), z standard normal and independent of the size.

    z takes `points` values between -5 and 5, equally far apart, with the normal's mass around each, so that
    there are at most n x `points` pairs. Raises ValueError as `joint_law` does, and for a negative sigma.
    """
    if not (np.isfinite(sigma) and sigma >= 0 and points >= 1):
        raise ValueError(f"sigma must be at least 0 and points at least 1, got {sigma} and {points}")
    x, w = _distinct(size, weight)
    edges = np.linspace(-_MOST_DEVIATIONS, _MOST_DEVIATIONS, points + 1)
    mass = np.diff([NormalDist().cdf(edge) for edge in edges])
    factor = np.exp(sigma * (edges[:-1] + edges[1:]) / 2)
    return joint_law(np.repeat(x, points), np.outer(x, factor).ravel(), np.outer(w, mass).ravel())


def binned_law(
    size: ArrayLike, edges: ArrayLike, confusion: ArrayLike, weight: ArrayLike | None = None
) -> JointLaw:
    """Predictions by a classifier with k bins: the midpoint of the bin it names.

    `edges` [k + 1] ascend; sizes beyond an end belong to the bin there. `confusion` [k, k] counts or weighs
    named bins (columns) by true bin (rows), given which the named bin does not depend on the size. Raises
    ValueError where shapes do not fit or a bin holds sizes and its row of `confusion` is empty.
    """
    cuts, counts = np.asarray(edges, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    k = len(cuts) - 1
    if cuts.ndim != 1 or k < 1 or not np.all(np.diff(cuts) > 0) or cuts[0] < 0:
        raise ValueError("bin edges must be at least two numbers from 0 upwards, ascending")
    if counts.shape != (k, k) or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"{k} bins need a confusion matrix of {k} x {k} numbers that are not negative")
    x, w = _distinct(size, weight)
    true = np.searchsorted(cuts[1:-1], x, side="right")
    total = counts.sum(axis=1)
    if (empty := np.flatnonzero(total[true] == 0)).size:
        row = int(true[empty[0]])
        raise ValueError(
            f"row {row} of the confusion matrix is empty, but sizes such as {x[empty[0]]:g} are in its bin,"
            f" {cuts[row]:g} to {cuts[row + 1]:g}; use bins that have been seen"
        )
    shares = counts / np.where(total > 0, total, 1.0)[:, None]
    middles = (cuts[:-1] + cuts[1:]) / 2
    return joint_law(np.repeat(x, k), np.tile(middles, len(x)), (w[:, None] * shares[true]).ravel())


def fcfs_times(law: JointLaw, arrival_rate: float) -> Floats:
    """E[T(x)] of every pair, float64 [n], first come first served (Pollaczek, Khinchine).

    Raises ValueError at a load of 1 and more.
    """
    load = _checked_load(law, arrival_rate)
    return arrival_rate * law.second_moment / (2 * (1 - load)) + law.size


class LimitedPreemption:
    """SPRPT with limited preemption over one joint law, for any arrival rate.

    O(n log^2 n) time once, for I1 + I2, which does not depend on the rate; O(n log n) a rate; O(n) memory.
    Raises ValueError for a negative or undefined c.
    """

    def __init__(self, law: JointLaw, c: float) -> None:
        if not c >= 0:
            raise ValueError(f"c is {c!r}; it must be at least 0 (0: a request that runs is protected)")
        self.law = law
        self.c = min(float(c), 1.0)  # past its prediction a request cannot be preempted anyway
        order = np.argsort(law.prediction, kind="stable")
        x, t, w = law.size[order], law.prediction[order], law.weight[order]
        self._levels, level = np.unique(law.prediction, return_inverse=True)
        self._level = level.reshape(-1)
        last = np.searchsorted(t, self._levels, side="right") - 1
        self._work = np.cumsum(w * x)[last]
        self._squares = np.cumsum(w * x**2)[last] + _recycled(x, t, w, self._levels, self.c)

    def times(self, arrival_rate: float) -> Floats:
        """E[T(x, r)] of every pair of the law, float64 [n]. Raises ValueError at a load of 1 and more."""
        _checked_load(self.law, arrival_rate)
        up_to = arrival_rate * self._work
        below = np.concatenate([[0.0], up_to[:-1]])
        waiting = arrival_rate * self._squares / (2 * (1 - up_to) * (1 - below))
        return np.asarray(waiting[self._level] + self._residence(up_to), dtype=np.float64)

    def _residence(self, up_to: Floats) -> Floats:
        """R of every pair. rho is constant between two predictions, so its integral is piecewise linear."""
        x, r = self.law.size, self.law.prediction
        knots = np.concatenate([[0.0], self._levels])
        slopes = 1 / (1 - np.concatenate([[0.0], up_to[:-1]]))
        integral = np.concatenate([[0.0], np.cumsum(np.diff(knots) * slopes)])
        preemptible = np.minimum(self.c * r, x)
        stretched = np.interp(r, knots, integral) - np.interp(r - preemptible, knots, integral)
        return np.asarray(stretched + np.maximum(x - self.c * r, 0.0), dtype=np.float64)


def _recycled(x: Floats, t: Floats, w: Floats, levels: Floats, c: float) -> Floats:
    """I2 at every level r, float64 [m], for pairs sorted by prediction t: work of larger predictions that
    comes to rank below r, because so little remains (b = t - r) or because it is protected (b = c t)."""
    first = np.searchsorted(t, levels, side="right")
    change = np.maximum(np.searchsorted((1 - c) * t, levels, side="left"), first)
    protected = w * np.maximum(x - c * t, 0.0) ** 2
    after = np.concatenate([np.cumsum(protected[::-1])[::-1], [0.0]])
    near = _squares_above(x - t, w, levels, first, change)
    return np.asarray(after[change] + near, dtype=np.float64)


def _squares_above(d: Floats, w: Floats, r: Floats, first: NDArray[np.intp], end: NDArray[np.intp]) -> Floats:
    """Sums over first <= i < end of w_i max(d_i + r, 0)^2, one for every r, float64 [m].

    A range of indices is a union of aligned blocks of 2^l entries, at most two for every l. Within each block
    entries are sorted by d with running sums of w, w d and w d^2, so that those with d > -r are a prefix.
    """
    n = len(d)
    depth = max(n - 1, 1).bit_length()
    padded = 1 << depth
    d = np.concatenate([d, np.full(padded - n, d.min())])
    w = np.concatenate([w, np.zeros(padded - n)])
    by_d = np.argsort(-d, kind="stable")
    place = np.empty(padded, dtype=np.int64)
    place[by_d] = np.arange(padded)
    positive = np.searchsorted(-d[by_d], r, side="left")
    total = np.zeros(len(r))
    low, high = first.copy(), np.maximum(end, first)
    for level in range(depth + 1):
        if not (low < high).any():
            break
        place = np.sort(place.reshape(-1, 1 << level), axis=1).ravel()
        keys = (np.arange(padded) >> level) * padded + place
        inner, weight = d[by_d[place]], w[by_d[place]]
        sums = [
            np.cumsum((weight * inner**power).reshape(-1, 1 << level), axis=1).ravel() for power in range(3)
        ]
        for odd_end, block in ((low, low), (high, high - 1)):
            chosen = np.flatnonzero((low < high) & (odd_end & 1 == 1))
            blocks = block[chosen]
            found = np.searchsorted(keys, blocks * padded + positive[chosen], side="left")
            chosen, found = chosen[found > blocks << level], found[found > blocks << level] - 1
            zeroth, linear, square = (running[found] for running in sums)
            total[chosen] += square + r[chosen] * (2 * linear + r[chosen] * zeroth)
        low, high = (low + 1) >> 1, high >> 1
    return np.maximum(total, 0.0)


def _distinct(size: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats]:
    x = np.asarray(size, dtype=np.float64)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    if x.ndim != 1 or x.shape != w.shape or not len(x):
        raise ValueError(f"sizes and weights must be [n] each, n at least 1, got {x.shape} and {w.shape}")
    values, index = np.unique(x, return_inverse=True)
    return values, np.asarray(np.bincount(index.reshape(-1), weights=w), dtype=np.float64)


def _checked_load(law: JointLaw, arrival_rate: float) -> float:
    load = arrival_rate * law.mean_size
    if not 0 <= load < 1:
        raise ValueError(
            f"the load is {load:g} (arrivals a time unit x mean size {law.mean_size:g}); it must lie in [0,"
            " 1), or the queue has no mean length"
        )
    return load
