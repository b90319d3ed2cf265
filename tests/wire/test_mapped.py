"""How the owner makes a file: whole, in place at once, readable by the group, or not at all."""

import os
import resource
import signal
from pathlib import Path

import pytest

from trail.wire.board import BoardReader, BoardWriter
from trail.wire.errors import WireError
from trail.wire.frames import FrameReader, RingSpec


def test_the_group_may_write_whatever_the_umask(ring_file: Path) -> None:
    before = os.umask(0o077)
    try:
        FrameReader.create(ring_file, RingSpec(4)).close()
    finally:
        os.umask(before)
    assert ring_file.stat().st_mode & 0o777 == 0o660


def test_every_byte_is_allocated(ring_file: Path) -> None:
    """A hole would end in SIGBUS on a full memory volume, in whichever process stores first."""
    FrameReader.create(ring_file, RingSpec(256)).close()
    status = ring_file.stat()
    assert status.st_blocks * 512 >= status.st_size == RingSpec(256).file_bytes


def test_a_half_made_file_of_a_killed_owner_is_replaced(ring_file: Path) -> None:
    ring_file.with_name(f".{ring_file.name}.tmp").write_bytes(b"half")
    FrameReader.create(ring_file, RingSpec(4)).close()
    assert [path.name for path in ring_file.parent.iterdir()] == [ring_file.name]


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="directory must exist"):
        FrameReader.create(tmp_path / "absent" / "frames-0.ring", RingSpec(4))


def test_no_room_leaves_nothing_behind(ring_file: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(WireError, match=f"cannot create .*{ring_file.name} with"):
            FrameReader.create(ring_file, RingSpec(256))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(ring_file.parent.iterdir()) == []


def test_closing_with_unlink_leaves_the_successors_file(board_file: Path) -> None:
    first = BoardWriter.create(board_file)
    second = BoardWriter.create(board_file)
    first.close(unlink=True)
    BoardReader.attach(board_file).close()
    second.close(unlink=True)
    assert not board_file.exists()


def test_closing_with_the_file_gone_is_quiet(board_file: Path) -> None:
    writer = BoardWriter.create(board_file)
    board_file.unlink()
    writer.close(unlink=True)
