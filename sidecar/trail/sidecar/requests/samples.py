"""A few of the predictions along every open request's life, kept until it ends."""

import numpy as np
import numpy.typing as npt

SAMPLES = 8
"""Predictions kept of a request, at most; even, since every second one is dropped when they are full."""


class LifeSamples:
    """Every stride-th prediction of the request in each slot, evenly spread over its life.

    The stride starts at 1 and doubles whenever SAMPLES are there, so that half of them or more are kept
    however long the request becomes. Memory is touched where requests are.
    """

    def __init__(self, capacity: int, bins: int) -> None:
        self._ages = np.zeros((capacity, SAMPLES), dtype=np.int64)
        self._posteriors = np.zeros((capacity, SAMPLES, bins), dtype=np.float32)
        self._stride = np.ones(capacity, dtype=np.int64)
        self._count = np.zeros(capacity, dtype=np.int64)

    def take(
        self,
        slots: npt.NDArray[np.int64],
        ages: npt.NDArray[np.int64],
        posteriors: npt.NDArray[np.float64],
        made: npt.NDArray[np.int64],
    ) -> None:
        """Takes one prediction a slot: posteriors [n, bins] at `ages` [n], after `made` [n] earlier ones."""
        if not made.all():
            self._stride[slots[made == 0]] = 1
        due = np.flatnonzero(made % self._stride[slots] == 0)
        if not len(due):
            return
        at = slots[due]
        place = made[due] // self._stride[at]
        full = place == SAMPLES
        if full.any():
            filled = at[full]
            half = SAMPLES // 2
            self._ages[filled, :half] = self._ages[filled, ::2]
            self._posteriors[filled, :half] = self._posteriors[filled, ::2]
            self._stride[filled] *= 2
            place[full] = half
        self._ages[at, place] = ages[due]
        self._posteriors[at, place] = posteriors[due]
        self._count[at] = place + 1

    def of(self, slot: int, made: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Copies of ages [s] and posteriors [s, bins] of the request in `slot`, of which `made` predictions
        were made; s is 0 without any."""
        count = int(self._count[slot]) if made else 0
        return self._ages[slot, :count].copy(), self._posteriors[slot, :count].copy()
