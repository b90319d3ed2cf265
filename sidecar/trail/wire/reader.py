"""The sidecar's end of the frame ring."""

import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trail.wire import ring
from trail.wire.mapped import MappedFile, create_file
from trail.wire.ring import DTYPE_OF_CODE, ROW_DTYPE, Kind, RingSpec, VectorDtype

_HEAD_TRIES = 4


@dataclass(frozen=True)
class Frame:
    """One engine step's exported vectors: `rows` [n] of ROW_DTYPE, `vectors` float32 [n, hidden].

    Rows are checksummed, vectors are not: the model itself may have produced values that are not finite.
    """

    step: int
    time_ns: int
    rows: npt.NDArray[np.void]
    vectors: npt.NDArray[np.float32]


@dataclass
class FrameCounters:
    """What became of the frames. Each frame offered is counted once: read, lost, torn or rejected.

    `lost` were overwritten before they were read, `torn` while they were. `rejected` counts by reason; the
    reason `bad_head` is about the ring's header and refers to no frame.
    """

    read: int = 0
    lost: int = 0
    torn: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str) -> None:
        """Count one rejection."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


@dataclass(frozen=True)
class WriterInfo:
    """What the attached writer said about itself."""

    dtype: str
    layers: tuple[int, ...]
    pid: int
    heartbeat_age_ns: int


class FrameReader:
    """Creates a ring and reads it. No content of the file can make it raise or read outside the mapping:

    the geometry is its own, and whatever the writer's side says is checked before use.
    """

    def __init__(self, mapped: MappedFile, spec: RingSpec) -> None:
        """Use `create`."""
        self.spec = spec
        self.counters = FrameCounters()
        self._file = mapped
        self._words = mapped.words
        self._data = mapped.data
        self._tail = 0
        self._head = 0
        self._refused_head = 0
        self._rows: list[npt.NDArray[np.void]] = [
            np.ndarray(spec.rows_per_frame, ROW_DTYPE, mapped.data, spec.slot_offset(slot) + spec.rows_offset)
            for slot in range(spec.slots)
        ]
        # One view a dtype and slot, made on first use.
        self._vectors: dict[tuple[int, int], npt.NDArray[np.generic]] = {}

    @classmethod
    def create(cls, path: Path, spec: RingSpec) -> "FrameReader":
        """Create the ring's file, replacing any other there. Raises WireError when it cannot be made."""
        mapped = create_file(path, spec.file_bytes, lambda data: ring.write_identity(spec, data))
        reader = cls(mapped, spec)
        reader.beat()
        return reader

    def read(self, max_frames: int = 64) -> list[Frame]:
        """The next frames, oldest first; looks at no more than `max_frames`, whatever becomes of them."""
        frames: list[Frame] = []
        if self._file.closed:
            return frames
        for _ in range(max_frames):
            head = self._newest()
            behind = head - self._tail - self.spec.slots
            if behind > 0:
                self.counters.lost += behind
                self._tail += behind
            if self._tail >= head:
                break
            frame = self._take(self._tail)
            self._tail += 1
            self._words[ring.TAIL_WORD] = self._tail
            if frame is not None:
                frames.append(frame)
        return frames

    def _newest(self) -> int:
        """Number of complete frames, as far as it can be believed.

        The header's head counts only where the newest frame is there, with a checksum that fits: a damaged
        word must not make the reader skip what it has not seen or count losses that never were.
        """
        for _ in range(_HEAD_TRIES):
            head = int(self._words[ring.HEAD_WORD])
            if head == self._head:
                return head
            if self._head < head < ring.MAX_FRAMES and self._is_complete(head - 1):
                self._head = head
                return head
            if int(self._words[ring.HEAD_WORD]) != head:
                continue  # the writer went on between the two loads
            if head != self._refused_head:
                self._refused_head = head
                self.counters.reject("bad_head")
            break
        return self._head

    def _is_complete(self, number: int) -> bool:
        offset = self.spec.slot_offset(number % self.spec.slots)
        if int(self._words[offset // 8]) != 2 * number + 2:
            return False
        count = ring.SLOT_HEADER.unpack_from(self._data, offset + ring.SLOT_HEADER_OFFSET)[0]
        return count <= self.spec.rows_per_frame and self._checksum_fits(number, offset, count)

    def _checksum_fits(self, number: int, offset: int, count: int) -> bool:
        """Whether header and `count` rows, at most `rows_per_frame`, are those of frame `number`."""
        stated: int = ring.CHECKSUM.unpack_from(self._data, offset + ring.CHECKSUM_OFFSET)[0]
        end = offset + ring.SLOT_HEADER_BYTES + count * ROW_DTYPE.itemsize
        covered = self._data[offset + ring.SLOT_HEADER_OFFSET : end]
        return zlib.crc32(covered, number & 0xFFFFFFFF) == stated

    def _take(self, number: int) -> Frame | None:
        """Copy and check frame `number`, counting what becomes of it."""
        slot = number % self.spec.slots
        offset = self.spec.slot_offset(slot)
        before = int(self._words[offset // 8])
        if before != 2 * number + 2:
            present = (before - 1) // 2
            # A later frame of the same slot that the writer can have reached: overwritten, not damaged.
            if (
                number < present <= int(self._words[ring.HEAD_WORD])
                and (present - number) % self.spec.slots == 0
            ):
                self.counters.lost += 1
            else:
                self.counters.reject("bad_sequence")
            return None
        outcome = self._copy(number, slot, offset)
        # A frame overwritten during the copy may fail any check; that is tearing, not damage.
        if int(self._words[offset // 8]) != before:
            self.counters.torn += 1
            return None
        if isinstance(outcome, str):
            self.counters.reject(outcome)
            return None
        self.counters.read += 1
        return outcome

    def _copy(self, number: int, slot: int, offset: int) -> Frame | str:
        """The frame in `slot`, or the reason why its bytes are none."""
        header = offset + ring.SLOT_HEADER_OFFSET
        count, step, time_ns, vector_bytes, code = ring.SLOT_HEADER.unpack_from(self._data, header)
        dtype = DTYPE_OF_CODE.get(code)
        if not 1 <= count <= self.spec.rows_per_frame:
            return "bad_count"
        if dtype is None:
            return "bad_dtype"
        if vector_bytes != count * self.spec.hidden_size * dtype.storage.itemsize:
            return "bad_length"
        if not self._checksum_fits(number, offset, count):
            return "bad_checksum"
        rows = self._rows[slot][:count].copy()
        if int(rows["kind"].max()) > Kind.TOKEN:
            return "bad_kind"
        return Frame(step, time_ns, rows, _widened(self._view(slot, dtype)[:count]))

    def _view(self, slot: int, dtype: VectorDtype) -> npt.NDArray[np.generic]:
        view = self._vectors.get((slot, dtype.code))
        if view is None:
            shape = (self.spec.rows_per_frame, self.spec.hidden_size)
            start = self.spec.slot_offset(slot) + self.spec.vectors_offset
            view = self._vectors[slot, dtype.code] = np.ndarray(shape, dtype.storage, self._data, start)
        return view

    def beat(self) -> None:
        """Tell the writer that this reader lives."""
        if not self._file.closed:
            self._words[ring.READER_BEAT_WORD] = time.monotonic_ns()

    def say_interval(self, interval_ns: int) -> None:
        """Tell the writer how long it is from one `read` to the next: it need not write more often."""
        if not self._file.closed:
            self._words[ring.INTERVAL_WORD] = interval_ns

    @property
    def writer(self) -> WriterInfo | None:
        """The attached writer, None where there is none or what it says makes no sense."""
        if self._file.closed or not (heartbeat_ns := int(self._words[ring.WRITER_BEAT_WORD])):
            return None
        pid, code, count, *layers = ring.WRITER.unpack_from(self._data, ring.WRITER_OFFSET)
        dtype = DTYPE_OF_CODE.get(code)
        age_ns = time.monotonic_ns() - heartbeat_ns
        if dtype is None or not 1 <= count <= ring.MAX_LAYERS or age_ns < 0:
            return None
        return WriterInfo(dtype.name, tuple(layers[:count]), pid, age_ns)

    def close(self, unlink: bool = False) -> None:
        """Withdraw the heartbeat (the writer sees it at once) and unmap; with `unlink` remove the file."""
        if self._file.closed:
            return
        self._words[ring.READER_BEAT_WORD] = 0
        self._rows.clear()
        self._vectors.clear()
        self._file.close(unlink=unlink)


def _widened(stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """A float32 copy of stored vectors; bfloat16 is the upper half of a float32."""
    if stored.dtype == np.uint16:
        bits = stored.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return stored.astype(np.float32)
