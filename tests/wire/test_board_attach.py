"""A file that is not this build's board is refused, naming what is wrong and what to do."""

import os
import struct
from pathlib import Path

import pytest

from trail.wire import board
from trail.wire.board import BoardReader, BoardWriter
from trail.wire.errors import LayoutError
from trail.wire.frames import LAYOUT_VERSION, FrameReader, RingSpec
from trail.wire.mapped import seal_identity


@pytest.fixture
def valid(board_file: Path) -> Path:
    BoardWriter.create(board_file, 16).close()
    return board_file


def overwrite(path: Path, offset: int, value: bytes | bytearray) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)


def test_no_file(board_file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        BoardReader.attach(board_file)


def test_foreign_file(board_file: Path) -> None:
    board_file.write_bytes(b"\0" * 4096)
    with pytest.raises(LayoutError, match=r"not a TRAIL board.*restart the sidecar"):
        BoardReader.attach(board_file)


def test_a_ring_in_the_boards_place(board_file: Path) -> None:
    FrameReader.create(board_file, RingSpec(8)).close()
    with pytest.raises(LayoutError, match=r"not a TRAIL board.*TRAILRNG"):
        BoardReader.attach(board_file)


def test_other_layout_version(valid: Path) -> None:
    overwrite(valid, 8, struct.pack("<I", LAYOUT_VERSION + 1))
    with pytest.raises(LayoutError, match=rf"layout version {LAYOUT_VERSION + 1}.*same TRAIL release"):
        BoardReader.attach(valid)


HEADER = board.HEADER_BYTES
SIZES = [0, 8, HEADER - 1, HEADER, HEADER + 16 * 32 - 8, HEADER + 16 * 32 + 32]


@pytest.mark.parametrize("size", SIZES)
def test_truncated_or_longer_file(valid: Path, size: int) -> None:
    os.truncate(valid, size)
    with pytest.raises(LayoutError, match="truncated or foreign"):
        BoardReader.attach(valid)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("offset", [12, 16])
@pytest.mark.parametrize("value", [0, 15, 17, 2**32 - 1])
def test_a_geometry_that_contradicts_the_file(valid: Path, offset: int, value: int, sealed: bool) -> None:
    header = bytearray(valid.read_bytes()[: board.HEADER_BYTES])
    header[offset : offset + 4] = struct.pack("<I", value)
    if sealed:
        seal_identity(memoryview(header), board.IDENTITY.size)
    overwrite(valid, 0, header)
    with pytest.raises(LayoutError, match="damaged"):
        BoardReader.attach(valid)
