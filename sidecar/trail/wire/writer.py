"""The worker's end of the frame ring."""

import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trail.wire import ring
from trail.wire.errors import LayoutError, WireError
from trail.wire.mapped import MappedFile, attach_file, heartbeat_within
from trail.wire.ring import ROW_DTYPE, VECTOR_DTYPES, RingSpec

_POLL_S = 0.0002
INTERVAL_LIMIT_NS = 100_000_000
"""A longer interval between a reader's looks is not believed."""


class FrameWriter:
    """Writes frames into a ring that the sidecar made. Never waits, except for a lossless ring.

    A full ring overwrites its oldest frame; the reader counts the loss.
    """

    def __init__(
        self,
        mapped: MappedFile,
        spec: RingSpec,
        *,
        dtype: str,
        layers: Sequence[int],
        head: int,
        lossless_timeout_s: float,
    ) -> None:
        """Use `attach`."""
        self.spec = spec
        self._file = mapped
        self._words = mapped.words
        self._data = mapped.data
        self._dtype = VECTOR_DTYPES[dtype]
        self._head = head
        self._lossless_timeout_s = lossless_timeout_s
        shape = (spec.rows_per_frame, spec.hidden_size)
        self._vectors = [
            np.ndarray(shape, self._dtype.storage, mapped.data, spec.slot_offset(slot) + spec.vectors_offset)
            for slot in range(spec.slots)
        ]
        # The heartbeat makes the rest of the writer's part valid: off first, on last.
        self._words[ring.WRITER_BEAT_WORD] = 0
        padding = [0] * (ring.MAX_LAYERS - len(layers))
        ring.WRITER.pack_into(
            mapped.data, ring.WRITER_OFFSET, os.getpid(), self._dtype.code, len(layers), *layers, *padding
        )
        self._words[ring.HEAD_WORD] = head
        self.beat()

    @classmethod
    def attach(
        cls,
        path: Path,
        *,
        hidden_size: int,
        dtype: str,
        layers: Sequence[int],
        lossless_timeout_s: float = 30.0,
    ) -> "FrameWriter":
        """Attach to the ring at `path`; frame numbers go on where an earlier writer stopped.

        `dtype` is float32, float16 or bfloat16; `layers` are at most 64 indices of Hugging Face's
        `hidden_states`.
        Raises FileNotFoundError without a file, LayoutError for an unusable one, WireError without access.
        """
        if dtype not in VECTOR_DTYPES:
            raise LayoutError(
                f"cannot export vectors of dtype {dtype}; frames carry {', '.join(VECTOR_DTYPES)}"
            )
        if not 1 <= len(layers) <= ring.MAX_LAYERS or not all(0 <= k < 1 << 16 for k in layers):
            raise LayoutError(
                f"cannot export layers {list(layers)}: a ring takes 1 to {ring.MAX_LAYERS} of them"
            )
        mapped = attach_file(path, "TRAIL frame ring", ring.HEADER_BYTES)
        try:
            spec = ring.read_identity(mapped)
            _check_hidden_size(path, spec, hidden_size)
            head = _resume(mapped, spec)
        except LayoutError:
            mapped.close()
            raise
        return cls(mapped, spec, dtype=dtype, layers=layers, head=head, lossless_timeout_s=lossless_timeout_s)

    def write(self, step: int, rows: npt.NDArray[np.void], vectors: npt.NDArray[np.generic]) -> int:
        """Write `rows` [n] of ROW_DTYPE with `vectors` [n, hidden]; returns the number of frames it took.

        Vectors are float32, float16, or uint16 holding bfloat16 bits, as stated at attach. Raises WireError
        for arrays that do not fit, on a closed writer, and when a lossless ring stays full too long.
        """
        spec = self.spec
        count = len(rows)
        if self._file.closed:
            raise WireError(f"{self._file.path}: written to after close; attach again")
        if (
            rows.dtype != ROW_DTYPE
            or vectors.dtype != self._dtype.storage
            or vectors.shape != (count, spec.hidden_size)
        ):
            raise WireError(
                f"{self._file.path}: {count} rows of {rows.dtype} with vectors {vectors.shape} of "
                f"{vectors.dtype} do not fit; expected rows of ROW_DTYPE and vectors "
                f"({count}, {spec.hidden_size}) of {self._dtype.storage}"
            )
        frames = 0
        for start in range(0, count, spec.rows_per_frame):
            stop = min(start + spec.rows_per_frame, count)
            if spec.lossless:
                self._wait_for_room()
            self._put(step, rows[start:stop].tobytes(), vectors[start:stop])
            frames += 1
        return frames

    def _put(self, step: int, rows: bytes, vectors: npt.NDArray[np.generic]) -> None:
        number, count, data = self._head, len(vectors), self._data
        slot = number % self.spec.slots
        offset = self.spec.slot_offset(slot)
        now_ns = time.monotonic_ns()
        self._words[offset // 8] = 2 * number + 1
        header = offset + ring.SLOT_HEADER_OFFSET
        end = offset + ring.SLOT_HEADER_BYTES + len(rows)
        ring.SLOT_HEADER.pack_into(data, header, count, step, now_ns, vectors.nbytes, self._dtype.code)
        data[offset + ring.SLOT_HEADER_BYTES : end] = rows
        # Seeded with the frame's number: an earlier frame's bytes never pass for this one's.
        checksum = zlib.crc32(data[header:end], number & 0xFFFFFFFF)
        ring.CHECKSUM.pack_into(data, offset + ring.CHECKSUM_OFFSET, checksum)
        self._vectors[slot][:count] = vectors
        self._words[offset // 8] = 2 * number + 2
        self._head = number + 1
        self._words[ring.HEAD_WORD] = self._head
        self._words[ring.WRITER_BEAT_WORD] = now_ns

    def _wait_for_room(self) -> None:
        deadline = time.monotonic() + self._lossless_timeout_s
        while self._head - self._words[ring.TAIL_WORD] >= self.spec.slots:
            if time.monotonic() >= deadline:
                raise WireError(
                    f"{self._file.path}: the lossless ring stayed full for {self._lossless_timeout_s} s; "
                    "its reader has stopped"
                )
            time.sleep(_POLL_S)

    def beat(self) -> None:
        """Tell the reader that this writer lives. Writing a frame does the same."""
        if not self._file.closed:
            self._words[ring.WRITER_BEAT_WORD] = time.monotonic_ns()

    def reader_alive(self, limit_ns: int) -> bool:
        """Whether the reader's heartbeat is at most `limit_ns` old."""
        return not self._file.closed and heartbeat_within(self._words[ring.READER_BEAT_WORD], limit_ns)

    def reader_interval_ns(self) -> int:
        """Nanoseconds between the reader's looks as it states them, at most `INTERVAL_LIMIT_NS`."""
        return 0 if self._file.closed else min(self._words[ring.INTERVAL_WORD], INTERVAL_LIMIT_NS)

    def close(self) -> None:
        """Withdraw the heartbeat and unmap; the file stays, it is the sidecar's."""
        if self._file.closed:
            return
        self._words[ring.WRITER_BEAT_WORD] = 0
        self._vectors.clear()
        self._file.close()


def _check_hidden_size(path: Path, spec: RingSpec, hidden_size: int) -> None:
    if spec.hidden_size != hidden_size:
        raise LayoutError(
            f"{path}: the sidecar expects vectors of hidden size {spec.hidden_size}, this model's have "
            f"{hidden_size}; give the sidecar a predictor trained for this model"
        )


def _resume(mapped: MappedFile, spec: RingSpec) -> int:
    """Number of the next frame: the header's head, believed only where the newest slot agrees."""
    head = int(mapped.words[ring.HEAD_WORD])
    newest = int(mapped.words[spec.slot_offset((head - 1) % spec.slots) // 8])
    if head and (head >= ring.MAX_FRAMES or newest != 2 * head):
        raise LayoutError(
            f"{mapped.path}: its header counts {head} frames, its newest slot is marked {newest}: damaged; "
            "restart the sidecar to make it again"
        )
    return head
