"""Whatever becomes of the sidecar, every request is answered in full, and one that is back is used again.

One engine serves all tests of this file, in their order: no sidecar yet, files that are not a board, a
sidecar that starts late, is killed, is started again, hangs and goes on.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scheduler_process import ROOT, EngineProcess, requests, wait_until

from trail.wire.board import BoardWriter
from trail.wire.names import board_path, socket_path

pytestmark = [pytest.mark.vllm, pytest.mark.alone]

IN_USE = "is in use"
SILENT = "no heartbeat"


class SidecarProcess:
    """`oracle_sidecar.py` as a process, loaded but silent until `begin`; `events()` is what it has logged."""

    def __init__(self, directory: Path, log: Path, policy: str = "oracle-c0.8") -> None:
        self.log = log
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("oracle_sidecar.py")),
                str(directory),
                policy,
                str(log),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "sidecar")},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"loaded\n"

    def begin(self) -> "SidecarProcess":
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def knows(self, count: int) -> bool:
        """Whether it has heard of `count` requests or more, within a time."""
        return wait_until(lambda: len({event["id"] for event in self.events("started")}) >= count)

    def met(self) -> bool:
        """Whether the engine's stream has begun, within a time: what ends before is never reported."""
        return wait_until(lambda: self.log.exists() and len(self.events("hello")) > 0)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="trail-test-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def engine(
    tiny_model: Callable[[str], Path], shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    engine = EngineProcess(
        tiny_model("llama"),
        shared,
        tmp_path_factory.mktemp("work"),
        max_num_seqs=4,
        num_gpu_blocks_override=100,
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def long_round() -> list[dict[str, Any]]:
    """Long enough that a sidecar can come and go while it is served: everything arrives at once."""
    return requests(count=96, every=0, seed=2)


@pytest.fixture(scope="module")
def expected(engine: EngineProcess, long_round: list[dict[str, Any]]) -> list[list[int]]:
    """The answers while there has never been a sidecar."""
    return list(engine.serve(long_round)["outputs"])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events"


def complete(result: dict[str, Any], round_of: list[dict[str, Any]]) -> bool:
    """Whether every request got all its tokens and ended by its length."""
    lengths = [len(output) for output in result["outputs"]]
    return lengths == [request["tokens"] for request in round_of] and set(result["reasons"].values()) == {
        "length"
    }


def serve_until_logged(
    engine: EngineProcess, text: str, round_of: list[dict[str, Any]], expected: list[list[int]]
) -> bool:
    """Serve rounds, each answered in full, until the engine has logged `text`; it looks every 250 ms."""
    since = len(engine.lines)
    for _ in range(100):
        assert engine.serve(round_of)["outputs"] == expected
        if engine.has_logged(text, since, limit_s=0.0):
            return True
    return False


def test_without_a_sidecar_requests_are_served_in_order_of_arrival(
    engine: EngineProcess, expected: list[list[int]], long_round: list[dict[str, Any]]
) -> None:
    assert [len(output) for output in expected] == [request["tokens"] for request in long_round]
    assert engine.has_logged("no sidecar yet")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"entirely other" * 800, "is not a TRAIL board"),
        (b"TRAIL", "truncated or foreign"),
    ],
)
def test_a_file_that_is_no_board_is_named_and_does_not_matter(
    content: bytes,
    says: str,
    engine: EngineProcess,
    shared: Path,
    expected: list[list[int]],
    long_round: list[dict[str, Any]],
) -> None:
    board_path(shared, 0).write_bytes(content)
    assert serve_until_logged(engine, says, long_round[:8], expected[:8])


def test_a_board_of_another_layout_version_is_named_and_does_not_matter(
    engine: EngineProcess, shared: Path, expected: list[list[int]], long_round: list[dict[str, Any]]
) -> None:
    path = board_path(shared, 0)
    BoardWriter.create(path).close()
    content = bytearray(path.read_bytes())
    content[8] += 1
    path.unlink()
    path.write_bytes(content)
    assert serve_until_logged(engine, "layout version", long_round[:8], expected[:8])


def test_a_truncated_board_is_named_and_does_not_matter(
    engine: EngineProcess, shared: Path, expected: list[list[int]], long_round: list[dict[str, Any]]
) -> None:
    path = board_path(shared, 0)
    path.unlink()
    BoardWriter.create(path).close()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:1024])
    assert serve_until_logged(engine, "its header states", long_round[:8], expected[:8])


def test_a_sidecar_that_starts_late_is_used_and_told_of_the_open_requests(
    engine: EngineProcess,
    shared: Path,
    expected: list[list[int]],
    long_round: list[dict[str, Any]],
    log: Path,
) -> None:
    board_path(shared, 0).unlink(missing_ok=True)
    since = len(engine.lines)
    sidecar = SidecarProcess(shared, log)
    engine.send(long_round)
    try:
        sidecar.begin()
        assert engine.has_logged(IN_USE, since)
        result = engine.result()
        assert wait_until(lambda: len(sidecar.events("finished")) > 0)
        assert result["outputs"] == expected
        assert max(event["age"] for event in sidecar.events("started")) > 0
        assert all(event["initial"] == 0 for event in sidecar.events("started"))
    finally:
        sidecar.kill()


def test_after_kill_9_under_load_requests_go_on_and_a_restarted_sidecar_is_used(
    engine: EngineProcess,
    shared: Path,
    expected: list[list[int]],
    long_round: list[dict[str, Any]],
    log: Path,
    tmp_path: Path,
) -> None:
    first = SidecarProcess(shared, log).begin()
    second = SidecarProcess(shared, tmp_path / "second")
    since = len(engine.lines)
    assert first.met()
    engine.send(long_round)
    assert first.knows(len(long_round))
    assert engine.has_logged(IN_USE, since)
    known = {event["id"]: event["exact"] for event in first.events("started")}
    since = len(engine.lines)
    first.kill()
    assert engine.has_logged(SILENT, since)
    assert socket_path(shared).exists()
    fallen = len(engine.lines)
    second.begin()
    try:
        assert engine.has_logged(IN_USE, fallen)
        result = engine.result()
        assert complete(result, long_round)
        assert result["outputs"] == expected
        sent_again = second.events("started")
        assert sent_again
        # Open requests keep their initial predictions: the oracle's is the exact length.
        assert all(event["initial"] == known[event["id"]] == event["exact"] for event in sent_again)
        assert any(event["age"] > 0 for event in sent_again)
    finally:
        second.kill()


def test_a_hanging_sidecar_is_passed_over_and_used_again_when_it_goes_on(
    engine: EngineProcess,
    shared: Path,
    expected: list[list[int]],
    long_round: list[dict[str, Any]],
    log: Path,
) -> None:
    sidecar = SidecarProcess(shared, log).begin()
    try:
        since = len(engine.lines)
        assert sidecar.met()
        engine.send(long_round)
        assert sidecar.knows(len(long_round))
        assert engine.has_logged(IN_USE, since)
        since = len(engine.lines)
        sidecar.signal(signal.SIGSTOP)
        assert engine.has_logged(SILENT, since)
        fallen = len(engine.lines)
        sidecar.signal(signal.SIGCONT)
        assert engine.has_logged(IN_USE, fallen)
        assert engine.result()["outputs"] == expected
    finally:
        sidecar.kill()


def test_a_sidecar_that_hangs_for_good_costs_no_request(
    engine: EngineProcess,
    shared: Path,
    expected: list[list[int]],
    long_round: list[dict[str, Any]],
    log: Path,
) -> None:
    sidecar = SidecarProcess(shared, log).begin()
    try:
        assert serve_until_logged(engine, IN_USE, long_round[:8], expected[:8])
        sidecar.signal(signal.SIGSTOP)
        for _ in range(2):
            assert engine.serve(long_round[:32])["outputs"] == expected[:32]
    finally:
        sidecar.kill()


def test_no_step_failed_in_our_own_code(engine: EngineProcess) -> None:
    assert not [line for line in engine.lines if "a step without it" in line or "TRAIL: off" in line]
