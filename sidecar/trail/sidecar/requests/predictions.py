"""The predictions along every open request's life, thinned where there are many and kept until it ends."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

POINTS = 2048
"""Predicted lengths kept of a request, at most; more than any usual answer has."""
SAMPLES = 8
"""Predicted distributions kept of a request, at most."""


class PredictionHistory(NamedTuple):
    """Predictions of one request in order of age, evenly spread over its life.

    `lengths` float32 [n] are its total lengths in tokens as predicted at `ages` int32 [n] (n at most POINTS),
    `posteriors` float32 [s, bins] what was believed at `sampled_ages` int32 [s] (s at most SAMPLES).
    """

    ages: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.float32]
    sampled_ages: npt.NDArray[np.int32]
    posteriors: npt.NDArray[np.float32]


class Thinned:
    """Every stride-th value of the request in each slot, in `columns` [capacity, kept, ...].

    The stride doubles whenever `kept` values are there, so that half of them or more are kept however long
    the request becomes; `kept` is even. Memory is touched where requests are.
    """

    def __init__(self, *columns: npt.NDArray[np.generic]) -> None:
        self.stride = np.ones(len(columns[0]), dtype=np.int64)
        self._columns = columns
        self._kept = columns[0].shape[1]

    def take(
        self,
        slots: npt.NDArray[np.int64],
        made: npt.NDArray[np.int64],
        most: int,
        *values: npt.NDArray[np.generic],
    ) -> None:
        """Takes one value a slot and column, [n, ...], after `made` [n] earlier ones, at most `most`."""
        place = made
        if most >= self._kept:  # or else no stride has grown yet
            due = np.flatnonzero(made % self.stride[slots] == 0)
            if not len(due):
                return
            slots, values = slots[due], tuple(value[due] for value in values)
            place = made[due] // self.stride[slots]
            if place.max() == self._kept:
                self._halve(slots, place)
        for column, value in zip(self._columns, values, strict=True):
            column[slots, place] = value

    def _halve(self, slots: npt.NDArray[np.int64], place: npt.NDArray[np.int64]) -> None:
        """Makes room in the slots that are full, and moves their `place` [n] there."""
        full = place == self._kept
        filled, half = slots[full], self._kept // 2
        for column in self._columns:
            column[filled, :half] = column[filled, ::2]
        self.stride[filled] *= 2
        place[full] = half

    def of(self, slot: int, made: int) -> list[npt.NDArray[np.generic]]:
        """Copies of what is kept of the request in `slot`, of which `made` values were taken, by column."""
        count = -(-made // int(self.stride[slot]))
        return [column[slot, :count].copy() for column in self._columns]


class PredictionHistories:
    """The histories of the requests in all slots."""

    def __init__(self, capacity: int, bins: int) -> None:
        points = (capacity, POINTS)
        self._points = Thinned(np.zeros(points, np.int32), np.zeros(points, np.float32))
        self._samples = Thinned(np.zeros((capacity, SAMPLES, bins), np.float32))

    def begin(self, slot: int) -> None:
        """Another request has the slot."""
        self._points.stride[slot] = self._samples.stride[slot] = 1

    def take(
        self,
        slots: npt.NDArray[np.int64],
        made: npt.NDArray[np.int64],
        ages: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.float64],
        posteriors: npt.NDArray[np.float64],
    ) -> None:
        """Takes one prediction a slot at `ages` [n], after `made` [n] earlier ones: total lengths [n] and
        posteriors [n, bins]; n is at least 1."""
        most = int(made.max())
        self._points.take(slots, made, most, ages, lengths)
        self._samples.take(slots, made, most, posteriors)

    def of(self, slot: int, made: int) -> PredictionHistory:
        """A copy of the history of the request in `slot`, of which `made` predictions were made."""
        ages, lengths = self._points.of(slot, made)
        (posteriors,) = self._samples.of(slot, made)
        # Both strides are powers of two: every sample is one of the points.
        apart = int(self._samples.stride[slot] // self._points.stride[slot])
        return PredictionHistory(ages, lengths, ages[::apart], posteriors)  # type: ignore[arg-type]
