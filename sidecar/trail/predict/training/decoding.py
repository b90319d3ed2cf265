"""Choice of the filter: half-life, novelty and sharpness that make the truth likeliest on other requests."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar

from trail.predict.bins import Bins
from trail.predict.quantiles import truncated
from trail.predict.refine import Decoding, Refiner
from trail.predict.training.evaluation import Sequences, follow

HALF_LIVES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Predictions."""
NOVELTIES = (0.0, 0.3, 1.0)
SHARPNESSES = (0.25, 4.0)
"""Least and most."""
_LONGEST = 128.0
_ROWS = 20_000
"""Rows that are judged, evenly drawn: successive ones say much the same."""
_REFINEMENTS = 16
"""Filters tried beside the best of the grid."""
_DIGITS = 3


def fit_decoding(sequences: Sequences, p: npt.NDArray[np.floating], bins: Bins, start: Decoding) -> Decoding:
    """`start` with the half-life, novelty and sharpness under which the true lengths' bins are likeliest.

    Half-life and novelty come from a grid, then a simplex search around its best; each is tried with the
    sharpness that suits it. `p` [N, k] are the probe's outputs at the rows of `sequences`. Rows of cut
    answers have no truth and are left out, and so is age 0; for the others it is known that they ended within
    their limit. Raises ValueError where no row is left.
    """
    judge = _Judge(sequences, p, bins)
    tried = {
        replace(start, half_life=half_life, novelty=novelty)
        for half_life in HALF_LIVES
        for novelty in (NOVELTIES if half_life else (start.novelty,))  # without memory it changes nothing
    }
    found = {decoding: judge.fitted(decoding) for decoding in sorted(tried, key=_order)}
    best = min(found.values(), key=lambda pair: pair[0])
    if best[1].half_life == 0:
        return best[1]

    def surprise(point: npt.NDArray[np.float64]) -> float:
        half_life, novelty = round(2.0 ** float(point[0]), _DIGITS), round(float(point[1]), _DIGITS)
        decoding = replace(start, half_life=half_life, novelty=novelty)
        if decoding not in found:
            found[decoding] = judge.fitted(decoding)
        return found[decoding][0]

    at = np.array([np.log2(best[1].half_life), best[1].novelty])
    inward = -0.3 if at[1] > 0.5 else 0.3
    minimize(
        surprise,
        at,
        method="Nelder-Mead",
        bounds=[(-2.0, np.log2(_LONGEST)), (0.0, 1.0)],
        options={
            "initial_simplex": at + np.array([[0.0, 0.0], [0.5, 0.0], [0.0, inward]]),
            "maxfev": _REFINEMENTS,
        },
    )
    return min(found.values(), key=lambda pair: pair[0])[1]


class _Judge:
    """Mean surprise (nats) at the truth of the rows that have one."""

    def __init__(self, sequences: Sequences, p: npt.NDArray[np.floating], bins: Bins) -> None:
        known = sequences.ages > 0
        if sequences.censored is not None:
            known &= ~sequences.per_row(sequences.censored)
        rows = np.flatnonzero(known)
        if not len(rows):
            raise ValueError(
                "no decode step with a known end is left to choose the filter by; record more prompts"
            )
        self._rows = rows[:: -(-len(rows) // _ROWS)]
        self._sequences, self._p, self._bins = sequences, p, bins
        self._truth = bins.index(sequences.remaining[self._rows])
        self._left = None if sequences.left is None else sequences.left[self._rows]

    def fitted(self, decoding: Decoding) -> tuple[float, Decoding]:
        """The least surprise that `decoding` has with any sharpness, and `decoding` with that."""
        posterior = follow(self._sequences, self._p, Refiner(self._bins, decoding))[self._rows]

        def surprise(logarithm: float) -> float:
            sharpness = round(float(np.exp(logarithm)), _DIGITS)
            read = Refiner(self._bins, replace(decoding, sharpness=sharpness)).read(posterior)
            if self._left is not None:
                read = truncated(read, self._bins, self._left)
            return -float(np.log(read[np.arange(len(read)), self._truth] + 1e-12).mean())

        found = minimize_scalar(
            surprise, bounds=tuple(np.log(SHARPNESSES)), method="bounded", options={"xatol": 5e-3}
        )
        return float(found.fun), replace(decoding, sharpness=round(float(np.exp(found.x)), _DIGITS))


def _order(decoding: Decoding) -> tuple[float, float]:
    return decoding.half_life, decoding.novelty
