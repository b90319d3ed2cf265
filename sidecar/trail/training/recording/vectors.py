"""Vectors of many shards as if they were one array, read where they lie."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trail.training.recording.layout import widened


class RecordedVectors:
    """Rows of memory-mapped parts [n_i, H], one part after another: float32 [N, H] when they are taken.

    `rows` int64 [N] picks rows of the whole by number; all of them where it is None.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(
        self, parts: Sequence[npt.NDArray[np.generic]], rows: npt.NDArray[np.int64] | None = None
    ) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self._rows = rows
        total = int(self._ends[-1]) if rows is None else len(rows)
        self.shape = (total, self._parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: "npt.NDArray[np.integer] | slice") -> npt.NDArray[np.float32]:
        """The rows [m, H] of an array of row numbers [m] or a slice. Raises IndexError for one outside."""
        wanted = np.arange(len(self))[index] if isinstance(index, slice) else np.asarray(index)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise IndexError(f"row numbers must be integers [m], got {wanted.dtype} {list(wanted.shape)}")
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"row numbers must lie in 0 to {len(self) - 1}")
        rows = wanted if self._rows is None else self._rows[wanted]
        out = np.empty((len(rows), self.shape[1]), np.float32)
        owner = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(owner):
            at = np.flatnonzero(owner == number)
            part = self._parts[number]
            out[at] = widened(part[rows[at] - (self._ends[number] - len(part))])
        return out
