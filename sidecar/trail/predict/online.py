"""Corrects what is believed of requests by how long the last ones really were.

The artefact was fitted to answers of another day. Two numbers follow the shift: a request's remaining length
is taken to be `stretch` times what the posterior says, and the posterior is raised to the power `sharpness`,
which widens it below 1 and narrows it above. With P the distribution over bins after the power and F its
distribution function, the whole number n of tokens has

    P(remaining = n) = F((n + 1) / stretch) - F(n / stretch),    P(remaining >= n) = 1 - F(n / stretch)

F rises evenly within a bin. The last bin has no end in truth: there the mass falls exponentially, with the
bin's middle as its mean, so that lengths beyond the last edge speak for a larger stretch. Both numbers are
fitted by likelihood on the last requests, an answer cut at a limit counting as "at least so long", with a
Gaussian prior in their logarithms around 1, which is the artefact as it was trained.

The prompt predictor gives one number and is stretched as well: requests that wait are ranked by it beside
those that run, and correcting one of the two alone would favour the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.refine import Refiner

Floats = npt.NDArray[np.float64]

BOUND = 2.0
"""Stretch and sharpness lie in [1 / BOUND, BOUND]."""
PRIOR_REQUESTS = 50.0
PRIOR_SPREAD = 0.5
"""The prior is worth PRIOR_REQUESTS requests that each place a logarithm within PRIOR_SPREAD of 0."""
_TINY = 1e-6
"""Probability that an outlier has at least: no single request may drag the fit."""
_LEAST = 1e-9
_GRID = 7
"""Points of the grid on each side of no correction, of either number."""
_GRID_ROWS = 100
"""Rows that the grid is judged on; more have fewer peaks."""
_LAST_STEP = 0.01
"""Of the search, in logarithms."""


@dataclass(frozen=True)
class Correction:
    """What is made of a posterior before it is read. Raises ValueError outside the bounds.

    `prompt_stretch` is what the prompt predictor's whole length is multiplied by.
    """

    stretch: float = 1.0
    sharpness: float = 1.0
    prompt_stretch: float = 1.0

    def __post_init__(self) -> None:
        for name in ("stretch", "sharpness", "prompt_stretch"):
            value = getattr(self, name)
            if not 1 / BOUND - 1e-9 <= value <= BOUND + 1e-9:
                raise ValueError(f"{name} must lie in [{1 / BOUND:g}, {BOUND:g}], got {value}")


NO_CORRECTION = Correction()


def corrected(
    refiner: Refiner, q: npt.NDArray[np.floating], correction: Correction = NO_CORRECTION
) -> Floats:
    """The distribution of remaining length / stretch that posteriors `q` [n, k] stand for, float64 [n, k]."""
    return sharpened(refiner.read(q), correction.sharpness)


def corrected_tokens(
    refiner: Refiner, q: npt.NDArray[np.floating], correction: Correction = NO_CORRECTION
) -> Floats:
    """Predicted remaining length in tokens, float64 [n], of posteriors `q` [n, k]."""
    return correction.stretch * refiner.point(corrected(refiner, q, correction))


def sharpened(p: Floats, sharpness: float) -> Floats:
    """Distributions `p` [n, k] to the power of `sharpness`, normalised."""
    if sharpness == 1.0:
        return p
    power = np.exp(sharpness * np.log(p + _LEAST))
    result: Floats = power / power.sum(axis=1, keepdims=True)
    return result


class Belief:
    """Distributions over bins as distribution functions without an end."""

    def __init__(self, p: Floats, bins: Bins) -> None:
        """`p` float64 [n, k], rows of sum 1."""
        self._p = p
        self._below = np.cumsum(p, axis=1) - p
        self._bins = bins
        self._rows = np.arange(len(p))

    def cdf(self, tokens: Floats) -> Floats:
        """The probability of fewer than `tokens` [n], float64 [n]."""
        bins, last = self._bins, self._bins.k - 1
        i = bins.index(tokens)
        into = (tokens - np.asarray(bins.edges)[i]) / bins.widths[i]
        share = np.where(i == last, -np.expm1(-2.0 * into), into)
        result: Floats = self._below[self._rows, i] + share * self._p[self._rows, i]
        return result


def log_likelihood(
    p: Floats,
    bins: Bins,
    remaining: npt.NDArray[np.integer],
    ended: npt.NDArray[np.bool_],
    stretch: float = 1.0,
) -> Floats:
    """Log probability, float64 [n], of what is known of `remaining` [n] tokens under `p` [n, k], stretched.

    Where `ended` the length is known, elsewhere it is at least that.
    """
    belief = Belief(p, bins)
    low = belief.cdf(remaining / stretch)
    high = np.where(ended, belief.cdf((remaining + 1) / stretch), 1.0)
    result: Floats = np.log(np.maximum(high - low, 0.0) + _TINY)
    return result


def fit_correction(
    p: Floats,
    bins: Bins,
    remaining: npt.NDArray[np.integer],
    ended: npt.NDArray[np.bool_],
    weights: Floats,
    *,
    pause: Callable[[], None] = lambda: None,
) -> Correction:
    """The correction of greatest posterior probability, to about 1 %.

    `p` [n, k] is what was believed (`Refiner.read`) when `remaining` [n] tokens were to come; `weights` [n]
    sum to 1 over the rows of a request, since its rows say much the same. Without a row there is none.
    `pause` is called between pieces of work.
    """
    if not len(p):
        return NO_CORRECTION

    def objective(stride: int) -> Callable[[tuple[float, float]], float]:
        rows = slice(None, None, stride)

        @cache
        def sharp(power: float) -> Floats:
            return sharpened(p[rows], math.exp(power))

        @cache
        def likely(at: tuple[float, float]) -> float:
            pause()
            ll = log_likelihood(sharp(at[1]), bins, remaining[rows], ended[rows], math.exp(at[0]))
            return stride * float(weights[rows] @ ll) - prior_cost(at)

        return likely

    limit = math.log(BOUND)
    axis = [limit * i / _GRID for i in range(-_GRID, _GRID + 1)]
    # Kinks at bin edges make many peaks of few rows, so the search begins at the best point of a grid.
    start = max(((a, b) for b in axis for a in axis), key=objective(-(-len(p) // _GRID_ROWS)))
    likely = objective(1)
    best, step = max(start, (0.0, 0.0), key=likely), limit / _GRID / 2
    while step > _LAST_STEP:
        around = [
            (_held(best[0] + a, limit), _held(best[1] + b, limit))
            for a, b in ((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step))
        ]
        better = max(around, key=likely)
        if likely(better) > likely(best):
            best = better
        else:
            step /= 2
    return Correction(stretch=math.exp(best[0]), sharpness=math.exp(best[1]))


def fit_prompt_stretch(said: Floats, lengths: npt.NDArray[np.integer]) -> float:
    """The factor on predicted whole lengths `said` [n] of least absolute error, drawn towards 1.

    Without the prior it is the median of length / said, weighted by said. Answers that were cut have no
    place here.
    """
    if not len(said):
        return 1.0
    ratio = lengths / said
    order = np.argsort(ratio)
    weight = np.cumsum(said[order])
    median = ratio[order][np.searchsorted(weight, weight[-1] / 2)]
    trusted = len(said) / (len(said) + PRIOR_REQUESTS)
    return math.exp(_held(trusted * math.log(max(float(median), _LEAST)), math.log(BOUND)))


def prior_cost(at: tuple[float, float]) -> float:
    """What a correction with these logarithms costs in log likelihood."""
    return PRIOR_REQUESTS * (at[0] ** 2 + at[1] ** 2) / (2 * PRIOR_SPREAD**2)


def _held(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)
