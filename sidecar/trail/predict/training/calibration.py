"""Whether what distributions over bins say of remaining lengths holds: intervals, and probabilities at edges.

Distributions are float [n, k] over `bins`, each row summing to 1 within rounding.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.quantiles import quantile

Floats = npt.NDArray[np.float64]

_GROUPS = 10
_CHUNK_ROWS = 65536


def cdf(probabilities: npt.NDArray[np.floating], bins: Bins, at: npt.ArrayLike) -> Floats:
    """The probability that fewer than `at` tokens remain, float64 [n]: the inverse of `quantiles.quantile`.

    `at` in tokens is a scalar or [n]; 0 at and below 0 tokens, 1 from the last edge on. Raises ValueError
    for NaN.
    """
    places = np.asarray(at, dtype=np.float64)
    if np.isnan(places).any():
        raise ValueError("a distribution has no value at NaN tokens")
    upper = np.cumsum(probabilities, axis=1, dtype=np.float64)
    x = np.broadcast_to(np.clip(places, 0.0, bins.edges[-1]), (len(upper),))
    i = np.searchsorted(np.asarray(bins.edges[1:-1]), x, side="right")
    rows = np.arange(len(upper))
    part = (np.asarray(bins.edges)[i + 1] - x) / bins.widths[i]
    result: Floats = (upper[rows, i] - part * probabilities[rows, i]) / upper[:, -1]
    return result


def interval_coverage(
    remaining: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating],
    bins: Bins,
    share: float = 0.8,
) -> tuple[float, float]:
    """How often the central interval of `share` holds the truth, and how wide it is in tokens on average.

    The interval goes from the quantile at (1 - share) / 2 to the one at (1 + share) / 2. A remaining length
    n is a whole number and stands for the tokens [n, n + 1); bin i holds the whole numbers from edges[i],
    rounded up, to below edges[i + 1], rounded up, so those rounded edges bound its mass here. A row counts
    by the part of [n, n + 1) inside the interval: 1 inside, 0 outside, a part at the two ends. So a
    forecast that is right covers `share` on average however narrow its bins are; counting ends whole would
    cover more, and comparing n itself would be half a token off (the non-randomised probability integral
    transform of Czado, Gneiting and Held, Biometrics 2009). A truth beyond the last edge is not covered.
    """
    whole = Bins(tuple(float(edge) for edge in np.ceil(bins.edges)))
    covered = width = 0.0
    for begin in range(0, len(remaining), _CHUNK_ROWS):  # cumulative sums of all rows at once fill memory
        truth, p = remaining[begin : begin + _CHUNK_ROWS], probabilities[begin : begin + _CHUNK_ROWS]
        low = quantile(p, whole, (1 - share) / 2)
        high = quantile(p, whole, (1 + share) / 2)
        inside = np.minimum(truth + 1.0, high) - np.maximum(truth, low)
        covered += float(np.clip(inside, 0.0, 1.0).sum())
        width += float((high - low).sum())
    return covered / len(remaining), width / len(remaining)


def edge_calibration(
    remaining: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating], bins: Bins
) -> tuple[float, dict[str, Any]] | None:
    """Whether P(remaining < edge) is as frequent as stated, over all inner edges of `bins`; None without one.

    First the expected calibration error: at each edge rows are put in order of the stated probability and
    cut into 10 groups of equal count; the error is the sum over groups of their share of rows times
    |mean stated - observed frequency|, and the mean of that over edges. Rows of equal stated probability
    count with their common frequency, so that the order of rows does not matter.

    Then the reliability diagram, pooled over edges: 10 groups of equal width in the stated probability,
    each with `predicted` (mean stated), `observed` (frequency) and `count`; an empty group has None.
    """
    if bins.k < 2:
        return None
    total = probabilities.sum(axis=1, dtype=np.float64)
    below = np.zeros(len(probabilities))
    pooled = np.zeros((3, _GROUPS))
    errors = []
    for i, edge in enumerate(bins.edges[1:-1]):
        below += probabilities[:, i]
        stated = np.minimum(below / total, 1.0)
        happened = (remaining < edge).astype(np.float64)
        errors.append(_calibration_error(stated, happened))
        group = np.minimum((stated * _GROUPS).astype(np.int64), _GROUPS - 1)
        sums = [np.bincount(group, weights=w, minlength=_GROUPS) for w in (stated, happened, None)]
        pooled += np.stack(sums)
    predicted, observed, counts = pooled.tolist()
    reliability = {
        "predicted": [value / n if n else None for value, n in zip(predicted, counts, strict=True)],
        "observed": [value / n if n else None for value, n in zip(observed, counts, strict=True)],
        "count": [int(n) for n in counts],
    }
    return float(np.mean(errors)), reliability


def _calibration_error(stated: Floats, happened: Floats) -> float:
    order = np.argsort(stated)
    stated, happened = stated[order], happened[order]
    first = np.flatnonzero(np.append(True, stated[1:] != stated[:-1]))
    equals = np.diff(np.append(first, len(stated)))
    frequency = np.repeat(np.add.reduceat(happened, first) / equals, equals)
    starts = np.unique(np.linspace(0, len(stated), _GROUPS + 1).astype(np.int64)[:-1])
    # Share times difference of means is the difference of sums over all rows.
    return float(np.abs(np.add.reduceat(stated - frequency, starts)).sum() / len(stated))
