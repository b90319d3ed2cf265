"""Bytes of the frame ring: header, slots, rows. One writer (vLLM's worker), one reader (the sidecar).

The ordering rests on the sequence words: a slot's word is `2 n + 1` while frame `n` is being written and
`2 n + 2` once it is complete; the header's `head` counts complete frames. x86-64 keeps the order of stores
and of loads, so a frame whose word is the same before and after the copy was copied whole. On arm64 stores
may become visible in another order: rows are still covered by the checksum, but a vector could be a mixture
of two frames, which at worst makes one prediction wrong until the next frame.
"""

import enum
import struct
from dataclasses import dataclass

import numpy as np

from trail.wire.errors import LayoutError
from trail.wire.mapped import LAYOUT_VERSION, MappedFile, check_identity, seal_identity

RING_MAGIC = b"TRAILRNG"
HEADER_BYTES = 4096

IDENTITY = struct.Struct("<8sIIIII4xQQ")
"""magic, layout version, hidden size, rows per frame, slots, lossless, slot bytes, file bytes."""
WRITER_OFFSET = 256
WRITER = struct.Struct("<III64H")
"""process id, dtype code, number of layers, layers: written once at attach."""
MAX_LAYERS = 64

# Each side's words have cache lines of their own.
HEAD_WORD = 512 // 8
WRITER_BEAT_WORD = 576 // 8
TAIL_WORD = 640 // 8
READER_BEAT_WORD = 704 // 8
INTERVAL_WORD = READER_BEAT_WORD + 1
"""Nanoseconds from one look of the reader's to its next, 0 unless it says so."""

SLOT_HEADER_BYTES = 64
CHECKSUM = struct.Struct("<I")
CHECKSUM_OFFSET = 8
SLOT_HEADER = struct.Struct("<IQQQI20x")
"""count, step, time_ns, bytes of vectors, dtype code; from `SLOT_HEADER_OFFSET` to the first row."""
SLOT_HEADER_OFFSET = 12
# The checksum is over one contiguous piece, the slot header after it and the rows. Not the vectors: at
# H = 4096 that would cost more than the copy, and the sequence word detects their tearing.

MAX_FRAMES = 1 << 62
"""Frame numbers stay below this, so that sequence words fit."""

ROW_DTYPE = np.dtype(
    [
        ("key", "<u8"),
        ("position", "<u4"),
        ("pooled", "<u4"),
        ("layer", "<u2"),
        ("kind", "u1"),
        ("pad", "u1", (5,)),
    ]
)
"""One exported vector's row, 24 bytes."""


class Kind(enum.IntEnum):
    """What a row's vector is: pooled over the prompt (age 0), or of one generated token."""

    PROMPT = 0
    TOKEN = 1


@dataclass(frozen=True)
class VectorDtype:
    """How vectors of one dtype lie in a slot. bfloat16 travels as its raw 16 bits."""

    name: str
    code: int
    storage: np.dtype[np.generic]


VECTOR_DTYPES = {
    d.name: d
    for d in (
        VectorDtype("float32", 1, np.dtype("<f4")),
        VectorDtype("float16", 2, np.dtype("<f2")),
        VectorDtype("bfloat16", 3, np.dtype("<u2")),
    )
}
DTYPE_OF_CODE = {d.code: d for d in VECTOR_DTYPES.values()}


@dataclass(frozen=True)
class RingSpec:
    """Geometry of a ring. A slot has room for `rows_per_frame` float32 vectors, whatever the writer's dtype.

    Raises ValueError for numbers outside the layout's limits.
    """

    hidden_size: int
    rows_per_frame: int = 64
    slots: int = 64
    lossless: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("hidden_size", self.hidden_size, 1, 1 << 20),
            ("rows_per_frame", self.rows_per_frame, 1, 1 << 16),
            # With two slots or more, the newest complete frame is not the one being written.
            ("slots", self.slots, 2, 1 << 20),
        ):
            if not low <= value <= high:
                raise ValueError(f"frame ring: {name} is {value}, allowed are {low} to {high}")

    @property
    def rows_offset(self) -> int:
        """First row, in bytes from the slot's start."""
        return SLOT_HEADER_BYTES

    @property
    def vectors_offset(self) -> int:
        """First vector, in bytes from the slot's start."""
        return _aligned(SLOT_HEADER_BYTES + self.rows_per_frame * ROW_DTYPE.itemsize)

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot, a multiple of the cache line."""
        return _aligned(self.vectors_offset + self.rows_per_frame * self.hidden_size * 4)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + self.slots * self.slot_bytes

    def slot_offset(self, slot: int) -> int:
        """Start of a slot, in bytes from the file's start."""
        return HEADER_BYTES + slot * self.slot_bytes


def _aligned(size: int) -> int:
    return (size + 63) & ~63


def write_identity(spec: RingSpec, data: memoryview) -> None:
    """Write the part of the header that never changes."""
    IDENTITY.pack_into(
        data,
        0,
        RING_MAGIC,
        LAYOUT_VERSION,
        spec.hidden_size,
        spec.rows_per_frame,
        spec.slots,
        int(spec.lossless),
        spec.slot_bytes,
        spec.file_bytes,
    )
    seal_identity(data, IDENTITY.size)


def read_identity(mapped: MappedFile) -> RingSpec:
    """Geometry of an attached ring, every number checked against the mapped size. Raises LayoutError."""
    check_identity(mapped, "TRAIL frame ring", RING_MAGIC, IDENTITY.size)
    _, _, hidden, rows, slots, lossless, slot_bytes, file_bytes = IDENTITY.unpack_from(mapped.data)
    damaged = "the file is damaged; restart the sidecar to make it again"
    try:
        spec = RingSpec(hidden, rows, slots, bool(lossless))
    except ValueError as error:
        raise LayoutError(f"{mapped.path}: {error}; {damaged}") from error
    if (slot_bytes, file_bytes) != (spec.slot_bytes, spec.file_bytes) or lossless > 1:
        raise LayoutError(
            f"{mapped.path}: its header states {slot_bytes} bytes a slot, {file_bytes} in all, "
            f"lossless {lossless}; "
            f"its geometry makes {spec.slot_bytes} and {spec.file_bytes}; {damaged}"
        )
    if len(mapped.data) != file_bytes:
        raise LayoutError(
            f"{mapped.path} has {len(mapped.data)} bytes, its header states {file_bytes}: truncated or "
            "foreign; restart the sidecar to make it again"
        )
    return spec
