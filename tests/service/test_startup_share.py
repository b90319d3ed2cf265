"""A sidecar that starts beside a serving vLLM leaves it a contended core, and nothing else is slowed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trail.service import startup_share
from trail.service.startup_share import CONTENDED_BELOW, FREE_FROM, WINDOW_S, Contention, StartupShare


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("idle", "own", "contended"),
    [
        (1.0, 0.0, False),
        (0.0, 1.0, False),
        (1.7, 0.3, False),
        (0.0, 0.5, True),
        (0.3, 0.3, True),
        (0.0, 0.0, True),
    ],
)  # fmt: skip
def test_a_core_is_free_that_is_idle_or_ones_own(idle: float, own: float, contended: bool) -> None:
    watch = Contention(100.0, 5.0, 50.0)
    assert watch.look(100.0 + idle * WINDOW_S, 5.0 + own * WINDOW_S, 50.0 + WINDOW_S) is contended


def test_one_who_runs_in_turns_goes_on_so_until_a_core_is_free() -> None:
    """Its own use is a tenth then: what the others take is not seen as theirs to give."""
    watch, idle_s, own_s, now_s = Contention(0.0, 0.0, 0.0), 0.0, 0.0, 0.0
    cores = [
        (0.0, 0.5, True),
        (0.0, 0.1, True),
        ((CONTENDED_BELOW + FREE_FROM) / 2, 0.0, True),
        (0.9, 0.1, False),
    ]
    for idle, own, contended in cores:
        idle_s, own_s, now_s = idle_s + idle * WINDOW_S, own_s + own * WINDOW_S, now_s + WINDOW_S
        assert watch.look(idle_s, own_s, now_s) is contended


def test_less_than_a_window_decides_nothing() -> None:
    watch = Contention(0.0, 0.0, 0.0)
    assert not watch.look(0.0, 0.0, WINDOW_S / 2)


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stopped(pid: int) -> bool:
    """A signal takes its time to arrive."""
    return any(state(pid) == "T" for _ in range(100_000))


def make(pid: int, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, idle: float) -> tuple[StartupShare, int]:
    """With as many idle cores as `idle` says."""
    monkeypatch.setattr(startup_share, "idle_seconds", lambda: idle * clock.now_s)
    monkeypatch.setattr(startup_share, "cpu_seconds", lambda _pid: 0.0)
    ready, end = os.pipe()
    return StartupShare(pid, ready, clock, contended=True), end


def test_it_is_stopped_most_of_each_turn_and_runs_after_it(
    child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    share, _ = make(child.pid, clock, monkeypatch, idle=0.0)
    seen: list[tuple[float, bool]] = []

    def wait(seconds: float) -> bool:
        clock.now_s += seconds
        seen.append((seconds, len(seen) % 2 == 1 and stopped(child.pid)))
        return False

    for _ in range(20):
        assert not share.turn(wait)
    runs = sum(seconds for seconds, was_stopped in seen if not was_stopped)
    assert runs / sum(seconds for seconds, _ in seen) == pytest.approx(startup_share.SHARE)
    assert any(state(child.pid) != "T" for _ in range(100_000))
    assert "1.0 s of it in turns" in share.describe()


def test_it_runs_freely_once_a_core_is_free(
    child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    share, _ = make(child.pid, clock, monkeypatch, idle=1.0)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        clock.now_s += seconds
        waited.append(seconds)
        return False

    while clock.now_s < 2 * WINDOW_S:
        share.turn(wait)
    assert waited[-1] == startup_share.TURN_S


@pytest.mark.parametrize("stop_at", [1, 2])
def test_whoever_ends_it_finds_it_running(
    stop_at: int, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    share, _ = make(child.pid, Clock(), monkeypatch, idle=0.0)
    calls: list[float] = []

    def wait(seconds: float) -> bool:
        calls.append(seconds)
        return len(calls) == stop_at

    assert share.turn(wait)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == -signal.SIGTERM


def test_it_is_over_when_the_child_says_so_is_gone_or_has_had_its_time(
    child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    up, end = make(child.pid, clock, monkeypatch, idle=0.0)
    assert not up.over
    os.write(end, b".")
    assert up.over
    gone, end = make(child.pid, clock, monkeypatch, idle=0.0)
    os.close(end)
    assert gone.over
    late, _ = make(child.pid, clock, monkeypatch, idle=0.0)
    clock.now_s += startup_share.LONGEST_S + 1
    assert late.over
