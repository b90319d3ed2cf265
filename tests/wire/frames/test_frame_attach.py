"""A file that is not this build's ring is refused, naming what is wrong and what to do."""

import os
import struct
from pathlib import Path

import pytest

from trail.wire import ring
from trail.wire.board import BoardWriter
from trail.wire.errors import LayoutError, WireError
from trail.wire.frames import LAYOUT_VERSION, FrameReader, FrameWriter, RingSpec
from trail.wire.mapped import seal_identity


def attach(path: Path, hidden_size: int = 8) -> FrameWriter:
    return FrameWriter.attach(path, hidden_size=hidden_size, dtype="float32", layers=[3])


@pytest.fixture
def valid(ring_file: Path) -> Path:
    FrameReader.create(ring_file, RingSpec(8, 4, 4)).close()
    return ring_file


def overwrite(path: Path, offset: int, value: bytes | bytearray) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)


def test_no_file(ring_file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        attach(ring_file)


def test_foreign_file(ring_file: Path) -> None:
    ring_file.write_bytes(b"not one of ours " * 1000)
    with pytest.raises(LayoutError, match=r"not a TRAIL frame ring.*restart the sidecar"):
        attach(ring_file)


def test_a_board_in_the_rings_place(ring_file: Path) -> None:
    BoardWriter.create(ring_file).close()
    with pytest.raises(LayoutError, match=r"not a TRAIL frame ring.*TRAILBRD"):
        attach(ring_file)


@pytest.mark.parametrize("size", [0, 1, 8, 100, ring.HEADER_BYTES - 8])
def test_file_shorter_than_the_header(valid: Path, size: int) -> None:
    os.truncate(valid, size)
    with pytest.raises(LayoutError, match="truncated or foreign"):
        attach(valid)


@pytest.mark.parametrize("change", [-64, -8, -1, 1, 8, 4096])
def test_file_of_another_length_than_its_header_states(valid: Path, change: int) -> None:
    os.truncate(valid, valid.stat().st_size + change)
    with pytest.raises(LayoutError, match="truncated or foreign"):
        attach(valid)


def test_other_layout_version(valid: Path) -> None:
    overwrite(valid, 8, struct.pack("<I", LAYOUT_VERSION + 1))
    with pytest.raises(
        LayoutError, match=rf"layout version {LAYOUT_VERSION + 1}.*reads {LAYOUT_VERSION}.*same TRAIL release"
    ):
        attach(valid)


def test_wrong_hidden_size(valid: Path) -> None:
    with pytest.raises(LayoutError, match=r"hidden size 8, this model's have 16.*predictor"):
        attach(valid, hidden_size=16)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("offset", [12, 16, 20, 24, 32, 40])
@pytest.mark.parametrize("value", [2, 2**31, 2**32 - 1])
def test_a_geometry_that_contradicts_the_file(valid: Path, offset: int, value: int, sealed: bool) -> None:
    header = bytearray(valid.read_bytes()[: ring.HEADER_BYTES])
    header[offset : offset + 4] = struct.pack("<I", value)
    if sealed:
        seal_identity(memoryview(header), ring.IDENTITY.size)
    overwrite(valid, 0, header)
    with pytest.raises(LayoutError, match=r"damaged|truncated"):
        attach(valid)


@pytest.mark.parametrize("head", [1, 2**62, 2**64 - 1])
def test_a_head_that_no_slot_confirms(valid: Path, head: int) -> None:
    overwrite(valid, ring.HEAD_WORD * 8, struct.pack("<Q", head))
    with pytest.raises(LayoutError, match="damaged"):
        attach(valid)


def test_a_directory(ring_file: Path) -> None:
    ring_file.mkdir()
    with pytest.raises(LayoutError, match="directory"):
        attach(ring_file)


def test_a_named_pipe_does_not_block(ring_file: Path) -> None:
    os.mkfifo(ring_file)
    with pytest.raises(LayoutError, match="not a regular file"):
        attach(ring_file)


def test_no_access(valid: Path) -> None:
    valid.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(WireError, match="needs read and write access"):
            attach(valid)
    finally:
        os.seteuid(user)


def test_a_symbolic_link_to_nothing(ring_file: Path) -> None:
    ring_file.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        attach(ring_file)


@pytest.mark.parametrize("layers", [[], list(range(65)), [-1], [1 << 16]])
def test_layers_that_a_ring_cannot_carry(valid: Path, layers: list[int]) -> None:
    with pytest.raises(LayoutError, match="layers"):
        FrameWriter.attach(valid, hidden_size=8, dtype="float32", layers=layers)


def test_a_dtype_that_frames_do_not_carry(valid: Path) -> None:
    with pytest.raises(LayoutError, match=r"float8.*bfloat16"):
        FrameWriter.attach(valid, hidden_size=8, dtype="float8_e4m3fn", layers=[1])


@pytest.mark.parametrize(
    "numbers", [{"hidden_size": 0}, {"hidden_size": 8, "slots": 1}, {"hidden_size": 8, "rows_per_frame": 0}]
)
def test_a_spec_out_of_range(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        RingSpec(**numbers)


def test_refused_files_are_unmapped(valid: Path) -> None:
    overwrite(valid, 8, struct.pack("<I", 99))
    for _ in range(200):
        with pytest.raises(LayoutError):
            attach(valid)
    assert str(valid) not in Path("/proc/self/maps").read_text()


def test_a_closed_writer_leaves_no_mapping(valid: Path) -> None:
    for _ in range(50):
        attach(valid).close()
    assert str(valid) not in Path("/proc/self/maps").read_text()
    assert issubclass(LayoutError, WireError)
