"""Where the rows of a shard wait until all of them are there: on disk, in the order of their arrival."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trail.training.recording.layout import RecordingError, due_rows, narrowed, storage_dtype


class Spool:
    """Takes rows of a shard's requests in any order, a file a layer, and says in which order they belong.

    A thread may add while another looks: what was added is in the file before it counts.
    """

    def __init__(self, directory: Path, layers: Sequence[int], hidden_size: int, dtype: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.last_row_s = time.monotonic()
        self._hidden_size = hidden_size
        self._dtype = dtype
        # Unbuffered: one write a batch of rows, and no row is in the index before it is in the file.
        self._paths = {layer: directory / f"{layer}.rows" for layer in layers}
        self._files = {layer: path.open("wb", buffering=0) for layer, path in self._paths.items()}
        self._index: dict[int, list[npt.NDArray[np.uint64]]] = {layer: [] for layer in layers}

    def add(
        self,
        layer: int,
        request: npt.NDArray[np.integer],
        age: npt.NDArray[np.integer],
        vectors: npt.NDArray[np.float32],
    ) -> None:
        """Rows of one layer: request within the shard [m], age [m], vectors [m, H]. Raises OSError."""
        data = memoryview(narrowed(vectors, self._dtype).tobytes())
        while data:  # a raw write may take a part only
            data = data[self._files[layer].write(data) :]
        self._index[layer].append(_packed(request, age))
        self.last_row_s = time.monotonic()

    def order(self, layer: int, output_tokens: npt.NDArray[np.integer], every: int) -> npt.NDArray[np.int64]:
        """File rows in order of request and age, given every request's length [n].

        An engine that schedules ahead also runs the last token of some requests; these rows stay out.
        Raises RecordingError for a row that is missing or came twice.
        """
        found = np.concatenate([np.zeros(0, np.uint64), *self._index[layer]])
        lengths = np.asarray(output_tokens, np.uint64)
        known = np.flatnonzero((found & _AGE_MASK) < lengths[(found >> _AGE_BITS).astype(np.int64)])
        order = known[np.argsort(found[known], kind="stable")]
        expected = _packed(*due_rows(output_tokens, every))
        if not np.array_equal(found[order], expected):
            raise RecordingError(f"layer {layer} {_fault(found[order], expected)}")
        return order

    def mapped(self, layer: int) -> npt.NDArray[np.generic]:
        """All rows of a layer as they came: [rows, H], memory-mapped."""
        shape = (sum(map(len, self._index[layer])), self._hidden_size)
        return np.memmap(self._paths[layer], storage_dtype(self._dtype), mode="r", shape=shape)

    def drop(self, layer: int) -> None:
        """Free the disk space of a layer."""
        self._files.pop(layer).close()
        self._paths[layer].unlink()

    def close(self) -> None:
        """Remove everything."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self.directory, ignore_errors=True)


_AGE_BITS = np.uint64(32)
_AGE_MASK = np.uint64(2**32 - 1)


def _packed(request: npt.NDArray[np.integer], age: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """Request and age in one number that sorts by request, then age."""
    return (np.asarray(request, np.uint64) << _AGE_BITS) | np.asarray(age, np.uint64)


def _fault(found: npt.NDArray[np.uint64], expected: npt.NDArray[np.uint64]) -> str:
    values, counts = np.unique(found, return_counts=True)
    for rows, what in (
        (np.setdiff1d(expected, values), "was not exported"),
        (values[counts > 1], "came twice"),
        (np.setdiff1d(values, expected), "came although it was not due"),
    ):
        if len(rows):
            request, age = int(rows[0] >> _AGE_BITS), int(rows[0] & _AGE_MASK)
            return f"of request {request} of the shard: the row of age {age} {what} ({len(rows)} such rows)"
    return "is incomplete"
