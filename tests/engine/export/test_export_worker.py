"""What vLLM calls on the worker goes through, whatever the export does."""

from types import SimpleNamespace
from typing import Any

import pytest

from trail.engine.export import worker
from trail.engine.export.worker import MAX_FAILURES, PlatformWorker, TrailWorker

OUTPUT = object()


class Breaks:
    """An exporter that fails while `broken`, and counts its calls."""

    def __init__(self) -> None:
        self.broken, self.calls, self.closed = True, 0, False

    def step(self, scheduler_output: Any, runner: Any) -> None:
        self.calls += 1
        if self.broken:
            raise KeyError("something of ours")

    def close(self) -> None:
        self.closed = True
        raise OSError("the directory is gone")


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TrailWorker over a platform worker that does nothing but answer."""
    monkeypatch.setattr(PlatformWorker, "load_model", lambda self, *a, **k: None)
    monkeypatch.setattr(PlatformWorker, "execute_model", lambda self, scheduler_output: OUTPUT)
    monkeypatch.setattr(PlatformWorker, "shutdown", lambda self: None)
    made = TrailWorker.__new__(TrailWorker)
    made.model_runner = SimpleNamespace()
    return made


def test_repeated_failures_switch_the_export_off_and_the_steps_count(ours: Any, trail_log: list[str]) -> None:
    ours._trail_exporter = exporter = Breaks()
    assert all(ours.execute_model(None) is OUTPUT for _ in range(MAX_FAILURES + 5))
    assert exporter.calls == MAX_FAILURES
    assert "something of ours" in trail_log[0]
    assert "export is off" in trail_log[1]
    assert exporter.closed


def test_failures_that_do_not_follow_each_other_are_borne(ours: Any) -> None:
    ours._trail_exporter = exporter = Breaks()
    for i in range(4 * MAX_FAILURES):
        exporter.broken = i % 2 == 0
        assert ours.execute_model(None) is OUTPUT
    assert exporter.calls == 4 * MAX_FAILURES


def test_an_export_that_cannot_start_is_named_and_the_model_loads(
    ours: Any, monkeypatch: pytest.MonkeyPatch, trail_log: list[str]
) -> None:
    def refuse(_worker: Any) -> None:
        raise ValueError("layer 99 does not exist")

    monkeypatch.setattr(worker, "start_export", refuse)
    ours.load_model()
    assert trail_log == ["TRAIL: export is off: ValueError: layer 99 does not exist"]
    assert ours.execute_model(None) is OUTPUT


def test_shutdown_closes_the_export_even_when_closing_fails(ours: Any, trail_log: list[str]) -> None:
    ours._trail_exporter = exporter = Breaks()
    ours.shutdown()
    assert exporter.closed
    assert ours._trail_exporter is None
    assert len(trail_log) == 1
