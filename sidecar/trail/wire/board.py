"""Board: how ranks travel from the sidecar to vLLM's engine core.

A memory-mapped file, one writer and one reader, under one sequence lock: the lock word is odd while the
writer changes rows, and a copy counts only if the word was even and the same before and after it. x86-64
keeps the order of stores and of loads, which makes that sound; on arm64 a copy could mix two updates, which
at worst orders one step by a mixture of two predictions.
"""

import math
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.wire.errors import LayoutError, WireError
from trail.wire.mapped import (
    LAYOUT_VERSION,
    MappedFile,
    attach_file,
    check_identity,
    create_file,
    heartbeat_within,
    seal_identity,
)

BOARD_MAGIC = b"TRAILBRD"
BOARD_ROW = np.dtype(
    [
        ("key", "<u8"),
        ("rank", "<f4"),
        ("slope", "<f4"),
        ("initial", "<f4"),
        ("remaining", "<f4"),
        ("cutoff", "<u4"),
        ("age", "<u4"),
    ]
)
"""One request's row, 32 bytes. A key of 0 is an empty row."""
MAX_CAPACITY = 1 << 20

HEADER_BYTES = 320
IDENTITY = struct.Struct("<8sIII4xQ")
"""magic, layout version, capacity, bytes a row, file bytes."""
LOCK_WORD = 64 // 8
BEAT_WORD = 128 // 8
STATE_OFFSET = 192
STATE = struct.Struct("<QQIIIi8d")
"""epoch, generation, order, preempt, boost, preemption limit, c, mean initial prediction, KV reserve, kappa,
wait, token time, preemption ratio, mean prompt."""
_TRIES = 8


@dataclass(frozen=True)
class BoardHeader:
    """The policy in force and who published it. `kv_reserve_tokens` below 0: no reserve.

    `boost`: ranks are to be made boosted arrivals, with `kappa` times `wait_s` (how long the queue is) and
    `token_s` (from one token of a request to its next); `mean_initial` and `mean_prompt` are what sizes are
    measured by. `max_preemptions` below 0: no limit.
    """

    epoch: int
    heartbeat_ns: int
    generation: int
    order: bool
    preempt: bool
    c: float
    mean_initial: float
    kv_reserve_tokens: float
    boost: bool = False
    kappa: float = 1.0
    wait_s: float = 0.0
    token_s: float = 0.0
    preempt_ratio: float = 1.0
    max_preemptions: int = -1
    mean_prompt: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether a sidecar could have written these numbers."""
        return (
            0 <= self.c <= 1
            and math.isfinite(self.mean_initial + self.kv_reserve_tokens)
            and self.kappa >= 0
            and 0 <= self.wait_s < math.inf
            and 0 <= self.token_s < math.inf
            and 1 <= self.preempt_ratio < math.inf
            and 0 <= self.mean_prompt < math.inf
        )


@dataclass(frozen=True)
class BoardSnapshot:
    """A consistent copy: `rows` [n] of BOARD_ROW at the slots asked for, in their order, and the header."""

    rows: npt.NDArray[np.void]
    header: BoardHeader


class BoardWriter:
    """The sidecar's end: creates the board and publishes to it."""

    def __init__(self, mapped: MappedFile, capacity: int) -> None:
        """Use `create`."""
        self.capacity = capacity
        self._file = mapped
        self._words = mapped.words
        self._lock = 0
        self._rows: npt.NDArray[np.void] = np.ndarray(capacity, BOARD_ROW, mapped.data, HEADER_BYTES)

    @classmethod
    def create(cls, path: Path, capacity: int = 4096) -> "BoardWriter":
        """Create the board's file, in place of one that may be there.

        Its heartbeat starts with the first `publish` or `beat`. Raises ValueError for a capacity outside the
        layout's limits, WireError when the file cannot be made.
        """
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"board: capacity is {capacity}, allowed are 1 to {MAX_CAPACITY}")
        size = _file_bytes(capacity)
        identity = (BOARD_MAGIC, LAYOUT_VERSION, capacity, BOARD_ROW.itemsize, size)

        def fill(data: memoryview) -> None:
            IDENTITY.pack_into(data, 0, *identity)
            seal_identity(data, IDENTITY.size)
            data[STATE_OFFSET : STATE_OFFSET + STATE.size] = _EMPTY_STATE

        return cls(create_file(path, size, fill), capacity)

    def publish(
        self, slots: npt.NDArray[np.integer], rows: npt.NDArray[np.void], header: BoardHeader
    ) -> None:
        """Write `rows` [n] of BOARD_ROW at `slots` [n] and the header, as one update, and the heartbeat.

        `header.heartbeat_ns` is not used: the heartbeat is the time of the call. Raises IndexError for a slot
        outside the board, ValueError for arrays that do not fit and WireError after close, each before
        anything is written.
        """
        if self._file.closed:
            raise WireError(f"{self._file.path}: published to after close; create a board")
        if rows.dtype != BOARD_ROW or rows.shape != slots.shape:
            raise ValueError(
                f"board: {slots.shape} slots with rows {rows.shape} of {rows.dtype}, expected {BOARD_ROW}"
            )
        if len(slots) and slots.dtype.kind not in "iu":
            raise ValueError(f"board: slots are {slots.dtype}, expected integers")
        if len(slots) and (int(slots.min()) < 0 or int(slots.max()) >= self.capacity):
            raise IndexError(
                f"board: slots {int(slots.min())} to {int(slots.max())} of a board with {self.capacity}"
            )
        state = _state(header)
        indices = slots.astype(np.intp, copy=False)
        # Counted here and not in the file: a damaged lock word heals with the next update.
        self._words[LOCK_WORD] = self._lock + 1
        self._rows[indices] = rows
        self._file.data[STATE_OFFSET : STATE_OFFSET + STATE.size] = state
        self._words[BEAT_WORD] = time.monotonic_ns()
        self._lock += 2
        self._words[LOCK_WORD] = self._lock

    def beat(self) -> None:
        """Tell the reader that this writer lives. Publishing does the same."""
        if not self._file.closed:
            self._words[BEAT_WORD] = time.monotonic_ns()

    def close(self, unlink: bool = False) -> None:
        """Withdraw the heartbeat (the engine falls back at once) and unmap; with `unlink` remove the file."""
        if self._file.closed:
            return
        self._words[BEAT_WORD] = 0
        del self._rows
        self._file.close(unlink=unlink)


class BoardReader:
    """The engine core's end. Never waits and never writes."""

    def __init__(self, mapped: MappedFile, capacity: int) -> None:
        """Use `attach`."""
        self.capacity = capacity
        self._file = mapped
        self._words = mapped.words
        self._rows: npt.NDArray[np.void] = np.ndarray(capacity, BOARD_ROW, mapped.data, HEADER_BYTES)

    @classmethod
    def attach(cls, path: Path) -> "BoardReader":
        """Attach to the board at `path`.

        Raises FileNotFoundError without a file, LayoutError for an unusable one, WireError without access.
        """
        mapped = attach_file(path, "TRAIL board", HEADER_BYTES)
        try:
            capacity = _read_capacity(mapped)
        except LayoutError:
            mapped.close()
            raise
        return cls(mapped, capacity)

    def snapshot(self, slots: npt.NDArray[np.integer]) -> BoardSnapshot | None:
        """Rows at `slots` [n] and the header, consistent; None when a bounded number of tries gave none.

        Values in rows are the writer's and unchecked; a header that no sidecar writes counts as no copy.
        Raises IndexError for a slot outside the board.
        """
        if self._file.closed:
            return None
        indices = slots.astype(np.intp, copy=False)
        for _ in range(_TRIES):
            lock = int(self._words[LOCK_WORD])
            if lock & 1:
                continue
            rows = self._rows.take(indices)
            heartbeat_ns = int(self._words[BEAT_WORD])
            state = STATE.unpack_from(self._file.data, STATE_OFFSET)
            if int(self._words[LOCK_WORD]) != lock:
                continue
            header = _header(state, heartbeat_ns)
            return BoardSnapshot(rows, header) if header is not None else None
        return None

    @property
    def update(self) -> int:
        """Number that differs after every `publish`; the heartbeat alone leaves it as it is."""
        return 0 if self._file.closed else int(self._words[LOCK_WORD])

    def fresh(self, limit_ns: int) -> bool:
        """Whether the sidecar's heartbeat is at most `limit_ns` old."""
        return not self._file.closed and heartbeat_within(self._words[BEAT_WORD], limit_ns)

    def close(self) -> None:
        """Unmap; the file stays, it is the sidecar's."""
        if self._file.closed:
            return
        del self._rows
        self._file.close()


def _state(header: BoardHeader) -> bytes:
    return STATE.pack(
        header.epoch,
        header.generation,
        int(header.order),
        int(header.preempt),
        int(header.boost),
        header.max_preemptions,
        header.c,
        header.mean_initial,
        header.kv_reserve_tokens,
        header.kappa,
        header.wait_s,
        header.token_s,
        header.preempt_ratio,
        header.mean_prompt,
    )


def _header(state: tuple[Any, ...], heartbeat_ns: int) -> BoardHeader | None:
    """The header that the words of STATE make; None for one that no sidecar writes."""
    (
        epoch,
        generation,
        order,
        preempt,
        boost,
        limit,
        c,
        mean,
        reserve,
        kappa,
        wait_s,
        token_s,
        ratio,
        prompt,
    ) = state
    if max(order, preempt, boost) > 1:
        return None
    header = BoardHeader(
        epoch=epoch,
        heartbeat_ns=heartbeat_ns,
        generation=generation,
        order=bool(order),
        preempt=bool(preempt),
        c=c,
        mean_initial=mean,
        kv_reserve_tokens=reserve,
        boost=bool(boost),
        kappa=kappa,
        wait_s=wait_s,
        token_s=token_s,
        preempt_ratio=ratio,
        max_preemptions=limit,
        mean_prompt=prompt,
    )
    return header if header.sound else None


_EMPTY_STATE = _state(BoardHeader(0, 0, 0, False, False, 0.0, 0.0, -1.0))


def _file_bytes(capacity: int) -> int:
    return HEADER_BYTES + capacity * BOARD_ROW.itemsize


def _read_capacity(mapped: MappedFile) -> int:
    """Capacity of an attached board, every number checked against the mapped size. Raises LayoutError."""
    capacity: int
    check_identity(mapped, "TRAIL board", BOARD_MAGIC, IDENTITY.size)
    _, _, capacity, row_bytes, file_bytes = IDENTITY.unpack_from(mapped.data)
    size = len(mapped.data)
    if size != file_bytes:
        raise LayoutError(
            f"{mapped.path} has {size} bytes, its header states {file_bytes}: truncated or foreign; "
            "restart the sidecar to make it again"
        )
    if not 1 <= capacity <= MAX_CAPACITY or row_bytes != BOARD_ROW.itemsize or _file_bytes(capacity) != size:
        raise LayoutError(
            f"{mapped.path}: its header states {capacity} rows of {row_bytes} bytes in {size}: damaged; "
            "restart the sidecar to make it again"
        )
    return capacity
