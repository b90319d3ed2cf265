"""How much disk space a recording takes, before it is made and while it is."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trail.training.recording.layout import REQUEST_DTYPE, ROW_DTYPE, row_counts, storage_dtype
from trail.training.recording.settings import RecordingSettings


class NoRoomError(Exception):
    """The disk has no room for what is to come; one sentence that says how much is missing and what to do."""


@dataclass(frozen=True)
class DiskUse:
    """Bytes on disk of requests of known lengths."""

    layers: int
    vector_bytes: int
    every: int

    @classmethod
    def of(cls, settings: RecordingSettings) -> "DiskUse":
        """As the recording's settings have it."""
        itemsize = storage_dtype(settings.dtype).itemsize
        return cls(len(settings.layers), settings.model.hidden_size * itemsize, settings.every)

    def bytes_of(self, output_tokens: npt.NDArray[np.integer]) -> int:
        """Bytes of requests with these lengths [n]."""
        rows = int(row_counts(output_tokens, self.every).sum())
        return rows * self.row_bytes + len(output_tokens) * REQUEST_DTYPE.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in all layers."""
        return self.layers * self.vector_bytes + ROW_DTYPE.itemsize

    def while_sorting(self, shard_bytes: int) -> int:
        """Bytes beside a finished shard while it is put in order: its largest file lies there twice."""
        return shard_bytes // self.layers


def longest_outputs(
    prompt_tokens: npt.NDArray[np.integer], settings: RecordingSettings
) -> npt.NDArray[np.int64]:
    """The most tokens each request can have, int64 [requests], given the prompts' lengths [prompts]."""
    most = np.minimum(settings.max_tokens, settings.max_model_len - np.asarray(prompt_tokens, np.int64))
    return np.repeat(most, settings.samples)


def check_room(path: Path, needed: int, what: str) -> None:
    """Raise NoRoomError unless the disk that holds `path` has `needed` bytes free for `what`."""
    free = shutil.disk_usage(path).free
    if needed > free:
        raise NoRoomError(
            f"{what} need about {size_text(needed)}, {size_text(free)} are free at {path}; make room, or"
            " record less with --layers, --every, --limit or --samples"
        )


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
