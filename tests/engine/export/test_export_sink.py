"""The sidecar comes late, goes, comes back, or is another: the sink follows, says so once, never raises."""

import time
from pathlib import Path

import numpy as np
import pytest

from trail.engine.export.sink import Sink
from trail.engine.start.config import ATTACH_INTERVAL_NS
from trail.wire.frames import ROW_DTYPE, FrameReader, RingSpec

HIDDEN = 4
ALIVE_NS = 60_000_000_000


def sink(path: Path, limit_ns: int = ALIVE_NS) -> Sink:
    return Sink(path, hidden_size=HIDDEN, dtype="float32", layers=(3,), heartbeat_ns=limit_ns)


def write(target: Sink, step: int = 1) -> None:
    target.write(step, np.zeros(1, ROW_DTYPE), np.full((1, HIDDEN), step, np.float32))


def test_attaches_when_the_sidecar_comes_late(tmp_path: Path, trail_log: list[str]) -> None:
    target = sink(tmp_path / "ring")
    now = time.monotonic_ns()
    for i in range(5):
        assert not target.tend(now + i * ATTACH_INTERVAL_NS)
    write(target)
    assert len(trail_log) == 1
    assert "no sidecar yet" in trail_log[0]

    reader = FrameReader.create(tmp_path / "ring", RingSpec(hidden_size=HIDDEN))
    reader.beat()
    assert not target.tend(now + 4 * ATTACH_INTERVAL_NS + 1)  # asked too soon after the last look
    assert target.tend(now + 6 * ATTACH_INTERVAL_NS)
    write(target)
    assert [f.step for f in reader.read()] == [1]
    assert reader.writer is not None
    assert reader.writer.layers == (3,)


def test_lets_go_of_a_silent_sidecar_and_finds_its_successor(tmp_path: Path, trail_log: list[str]) -> None:
    reader = FrameReader.create(tmp_path / "ring", RingSpec(hidden_size=HIDDEN))
    reader.beat()
    target = sink(tmp_path / "ring", limit_ns=20_000_000)
    now = time.monotonic_ns()
    assert target.tend(now)
    time.sleep(0.03)
    assert not target.tend(now + ATTACH_INTERVAL_NS)
    write(target)
    successor = FrameReader.create(tmp_path / "ring", RingSpec(hidden_size=HIDDEN))
    successor.beat()
    assert target.tend(now + 2 * ATTACH_INTERVAL_NS)
    write(target, step=9)
    assert [f.step for f in successor.read()] == [9]
    assert sum("silent for more than 20 ms" in line for line in trail_log) == 1
    assert sum("exporting hidden_states[3]" in line for line in trail_log) == 2


@pytest.mark.parametrize("content", [b"", b"something else entirely" * 500])
def test_waits_beside_a_foreign_or_truncated_file(
    content: bytes, tmp_path: Path, trail_log: list[str]
) -> None:
    (tmp_path / "ring").write_bytes(content)
    target = sink(tmp_path / "ring")
    now = time.monotonic_ns()
    for i in range(3):
        assert not target.tend(now + i * ATTACH_INTERVAL_NS)
    assert len(trail_log) == 1
    assert str(tmp_path / "ring") in trail_log[0]


def test_a_probe_of_another_hidden_size_is_named(tmp_path: Path, trail_log: list[str]) -> None:
    FrameReader.create(tmp_path / "ring", RingSpec(hidden_size=HIDDEN + 1)).beat()
    assert not sink(tmp_path / "ring").tend(time.monotonic_ns())
    assert f"hidden size {HIDDEN + 1}" in trail_log[0]


def test_a_full_ring_keeps_taking_frames(tmp_path: Path) -> None:
    reader = FrameReader.create(tmp_path / "ring", RingSpec(hidden_size=HIDDEN, slots=4))
    reader.beat()
    target = sink(tmp_path / "ring")
    assert target.tend(time.monotonic_ns())
    for step in range(20):
        write(target, step)
    assert [f.step for f in reader.read()][-1] == 19
    assert reader.counters.lost >= 16 - 1
