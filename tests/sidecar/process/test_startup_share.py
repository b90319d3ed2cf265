"""A sidecar that starts beside a serving vLLM leaves it a contended core, and nothing else is slowed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trail.sidecar.process import startup_share
from trail.sidecar.process.startup_share import (
    CONTENDED_BELOW,
    FREE_FROM,
    WINDOW_S,
    Contention,
    Start,
    StartupShare,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("idle", "own", "contended"),
    [(1.0, 0.0, False), (0.0, 1.0, False), (1.7, 0.3, False), (0.0, 0.5, True), (0.3, 0.3, True)],
)  # fmt: skip
def test_a_core_is_free_that_is_idle_or_ones_own(idle: float, own: float, contended: bool) -> None:
    watch = Contention(100.0, 5.0, 50.0)
    assert watch.look(100.0 + idle * WINDOW_S, 5.0 + own * WINDOW_S, 50.0 + WINDOW_S) is contended


def test_one_who_runs_in_turns_goes_on_so_until_a_core_is_free() -> None:
    """Its own use is a tenth then: what the others take is not seen as theirs to give."""
    watch, idle_s, own_s, now_s = Contention(0.0, 0.0, 0.0), 0.0, 0.0, 0.0
    between = (CONTENDED_BELOW + FREE_FROM) / 2
    for idle, own, contended in ((0.0, 0.5, True), (0.0, 0.1, True), (between, 0.0, True), (0.9, 0.1, False)):
        idle_s, own_s, now_s = idle_s + idle * WINDOW_S, own_s + own * WINDOW_S, now_s + WINDOW_S
        assert watch.look(idle_s, own_s, now_s) is contended


def test_a_look_is_due_once_a_window_has_passed() -> None:
    watch = Contention(0.0, 0.0, 0.0)
    assert not watch.due(WINDOW_S / 2)
    assert watch.due(WINDOW_S)


@pytest.mark.parametrize(("before", "after"), [(None, 1.0), (1.0, None), (None, None)])
def test_what_cannot_be_seen_holds_no_start_up(before: float | None, after: float | None) -> None:
    assert not Contention(before, 0.0, 0.0, contended=True).look(after, 0.0, WINDOW_S)


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


def test_it_is_told_whether_the_child_is_up_gone_or_late(
    child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    up, end = make(child.pid, clock, monkeypatch, idle=0.0)
    assert up.look() is Start.GOES_ON
    os.write(end, b".")
    assert up.look() is Start.UP
    gone, end = make(child.pid, clock, monkeypatch, idle=0.0)
    os.close(end)
    assert gone.look() is Start.GONE
    late, _ = make(child.pid, clock, monkeypatch, idle=0.0)
    clock.now_s += startup_share.LONGEST_S + 1
    assert late.look() is Start.LATE


def test_a_child_that_is_gone_is_waited_for_as_any_other(
    child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not asked again at once, which would take the core that it is about."""
    clock = Clock()
    share, _ = make(child.pid, clock, monkeypatch, idle=0.0)

    def nobody(_pid: int) -> float:
        raise ProcessLookupError

    monkeypatch.setattr(startup_share, "cpu_seconds", nobody)
    clock.now_s += WINDOW_S
    waited: list[float] = []
    assert not share.turn(lambda seconds: bool(waited.append(seconds)))
    assert waited == [startup_share.TURN_S]
