"""Frame ring: how hidden states travel from vLLM's worker to the sidecar.

A memory-mapped file of fixed-size slots, one writer and one reader; layout in `trail.wire.ring`, the two
ends in `trail.wire.writer` and `trail.wire.reader`.
"""

from trail.wire.mapped import LAYOUT_VERSION
from trail.wire.reader import Frame, FrameCounters, FrameReader, WriterInfo
from trail.wire.ring import ROW_DTYPE, Kind, RingSpec
from trail.wire.writer import FrameWriter

__all__ = [
    "LAYOUT_VERSION",
    "ROW_DTYPE",
    "Frame",
    "FrameCounters",
    "FrameReader",
    "FrameWriter",
    "Kind",
    "RingSpec",
    "WriterInfo",
]
