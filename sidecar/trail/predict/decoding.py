"""Choice of the filter's half-life and sharpness: under which the truth is likeliest on other requests."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.evaluation import Sequences, follow
from trail.predict.quantiles import truncated
from trail.predict.refine import Decoding, Refiner

HALF_LIVES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Predictions."""
SHARPNESSES = tuple(float(s) for s in np.round(np.geomspace(0.5, 2.0, 25), 3))
_ROWS = 20_000
"""Rows that are judged, evenly drawn: successive ones say much the same."""


def fit_decoding(sequences: Sequences, p: npt.NDArray[np.floating], bins: Bins, start: Decoding) -> Decoding:
    """`start` with the half-life and sharpness under which the bins of the true lengths are likeliest.

    `p` [N, k] are the probe's outputs at the rows of `sequences`. Rows of cut answers have no truth and are
    left out, and so is age 0; for the others it is known that they ended within their limit. Raises
    ValueError where no row is left.
    """
    known = sequences.ages > 0
    if sequences.censored is not None:
        known &= ~sequences.per_row(sequences.censored)
    rows = np.flatnonzero(known)
    if not len(rows):
        raise ValueError(
            "no decode step with a known end is left to choose the filter by; record more prompts"
        )
    rows = rows[:: -(-len(rows) // _ROWS)]
    truth = bins.index(sequences.remaining[rows])
    left = sequences.left
    found = []
    for half_life in HALF_LIVES:
        decoding = replace(start, half_life=half_life)
        posterior = follow(sequences, p, Refiner(bins, decoding))[rows]
        for sharpness in SHARPNESSES:
            tried = replace(decoding, sharpness=sharpness)
            read = Refiner(bins, tried).read(posterior)
            if left is not None:
                read = truncated(read, bins, left[rows])
            found.append((-float(np.log(read[np.arange(len(rows)), truth] + 1e-12).mean()), tried))
    return min(found, key=lambda pair: pair[0])[1]
