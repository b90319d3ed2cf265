"""What the wire tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trail.wire.frames import ROW_DTYPE, FrameReader, FrameWriter, RingSpec

Rows = tuple[npt.NDArray[np.void], npt.NDArray[np.float32]]


@pytest.fixture
def ring_file(tmp_path: Path) -> Path:
    return tmp_path / "frames-0.ring"


@pytest.fixture
def board_file(tmp_path: Path) -> Path:
    return tmp_path / "board-0.board"


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    """Rows whose vectors repeat their key, so that a vector beside the wrong row shows."""

    def make(count: int, hidden_size: int, first_key: int = 1) -> Rows:
        rows = np.zeros(count, ROW_DTYPE)
        rows["key"] = np.arange(first_key, first_key + count)
        rows["position"] = np.arange(count)
        rows["pooled"] = 1
        rows["layer"] = 3
        rows["kind"] = np.arange(count) % 2
        vectors = np.repeat(rows["key"].astype(np.float32)[:, None], hidden_size, axis=1)
        return rows, vectors

    return make


@pytest.fixture
def ends(ring_file: Path) -> Iterator[Callable[..., tuple[FrameReader, FrameWriter]]]:
    """A reader with its writer on one ring; both are closed at the end."""
    opened: list[FrameReader | FrameWriter] = []

    def make(spec: RingSpec, dtype: str = "float32", **options: float) -> tuple[FrameReader, FrameWriter]:
        reader = FrameReader.create(ring_file, spec)
        writer = FrameWriter.attach(
            ring_file, hidden_size=spec.hidden_size, dtype=dtype, layers=[3], **options
        )
        opened.extend((reader, writer))
        return reader, writer

    yield make
    for end in opened:
        end.close()
