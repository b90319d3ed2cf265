"""Quantiles of a distribution over bins of whole numbers of tokens.

A bin [a, b) holds the whole numbers a to b - 1, each as likely as the others. Mass spread evenly over the bin
puts the number n on [n, n + 1): a quantile of the whole number is the floor of that of the spread mass, and
the middle of its range lies half a token lower.
"""

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins


def quantile(
    probabilities: npt.NDArray[np.floating], bins: Bins, level: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Where the cumulative probability of the spread mass reaches `level`, float64 [n] in tokens.

    `probabilities` [n, k] sum to 1 a row; `level` is a scalar or [n], in [0, 1].
    """
    upper = np.cumsum(np.asarray(probabilities, dtype=np.float64), axis=1)
    # Rounding may leave the sum below the level, which the last bin with mass must still reach.
    wanted = np.minimum(np.broadcast_to(np.asarray(level, dtype=np.float64), (len(upper),)), upper[:, -1])
    index = np.argmax(upper >= wanted[:, None], axis=1)
    rows = np.arange(len(upper))
    mass = np.asarray(probabilities, dtype=np.float64)[rows, index]
    below = upper[rows, index] - mass
    edges = np.asarray(bins.edges, dtype=np.float64)
    share = np.divide(wanted - below, mass, out=np.zeros(len(upper)), where=mass > 0)
    result: npt.NDArray[np.float64] = edges[index] + np.clip(share, 0.0, 1.0) * bins.widths[index]
    return result


def median(probabilities: npt.NDArray[np.floating], bins: Bins) -> npt.NDArray[np.float64]:
    """The length that halves the probability, float64 [n] in tokens: the guess of least absolute error."""
    return np.maximum(quantile(probabilities, bins, 0.5) - 0.5, 0.0)


def truncated(
    probabilities: npt.NDArray[np.floating], bins: Bins, most: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """The distribution given that the length is at most `most` [n] tokens, float64 [n, k].

    For answers known to have ended by themselves under a limit. A row without mass up to there puts all of
    it into the bin of `most`.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    # The whole number `most` lies on [most, most + 1).
    end = np.asarray(most, dtype=np.float64)[:, None] + 1.0
    low = np.asarray(bins.edges[:-1], dtype=np.float64)[None, :]
    kept = p * np.clip((end - low) / bins.widths[None, :], 0.0, 1.0)
    total = kept.sum(axis=1, keepdims=True)
    at = np.eye(bins.k)[bins.index(most)]
    result: npt.NDArray[np.float64] = np.where(total > 1e-12, kept / np.maximum(total, 1e-12), at)
    return result
