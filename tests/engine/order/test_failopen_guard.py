"""An error in TRAIL's own code costs a step its order, never a request; repeated ones switch TRAIL off."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scheduler_model import SchedulerModel, make_request

from trail.engine.order.side import FAILURES_IN_A_ROW, SchedulerSide
from trail.engine.start.config import EngineConfig
from trail.wire.names import XARG_OUTPUT_TOKENS


@pytest.fixture
def scheduler() -> SchedulerModel:
    return SchedulerModel(slots=2, blocks=50)


@pytest.fixture
def side(scheduler: SchedulerModel, tmp_path: Path) -> Iterator[SchedulerSide]:
    side = SchedulerSide(scheduler, EngineConfig(enabled=True, directory=tmp_path, heartbeat_ns=10**8))
    scheduler.side = side
    yield side
    side.stop()


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    # Not caplog: whether vLLM's loggers reach the root logger depends on who has configured them.
    handler = Kept()
    logger = logging.getLogger("vllm.trail")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


def step(scheduler: SchedulerModel, side: SchedulerSide) -> None:
    side.before(throttled=False)
    try:
        output = scheduler.schedule()
    finally:
        side.restore()
    side.after(output)
    scheduler.update()


def broken(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("broken on purpose")


def test_a_failing_step_is_served_by_vllm_alone(
    scheduler: SchedulerModel, side: SchedulerSide, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    for number in range(4):
        scheduler.add_request(make_request(number, 4, 3))
    with monkeypatch.context() as patch:
        patch.setattr(side._ordering, "before", broken)
        step(scheduler, side)
    for _ in range(10):
        step(scheduler, side)
    assert scheduler.finished == ["r0", "r1", "r2", "r3"]
    assert not side.off
    assert sum("a step without it" in line for line in lines) == 1


def test_failures_in_a_row_switch_trail_off_with_one_line(
    scheduler: SchedulerModel, side: SchedulerSide, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(side._ordering, "before", broken)
    for number in range(4):
        scheduler.add_request(make_request(number, 4, 3))
    for done in range(FAILURES_IN_A_ROW):
        assert not side.off, done
        step(scheduler, side)
    assert side.off
    assert sum("off after" in line and "broken on purpose" in line for line in lines) == 1


@pytest.mark.parametrize("method", ["added", "preempting", "freed"])
def test_no_hook_lets_an_error_through(
    method: str, scheduler: SchedulerModel, side: SchedulerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(0, 4, 3)
    for part in ("_table", "_recompute", "_ordering", "_stream"):
        monkeypatch.setattr(side, part, None)
    getattr(side, method)(request)
    monkeypatch.undo()


def test_a_request_held_back_returns_when_vllm_itself_fails(
    scheduler: SchedulerModel, side: SchedulerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(0, 4, 30)
    scheduler.add_request(request)
    step(scheduler, side)

    def preempt(now_ns: int, throttled: bool) -> None:
        side._queues.preempt(request, 0.0)
        side._ordering._held.append(request)

    monkeypatch.setattr(side._ordering, "before", preempt)
    monkeypatch.setattr(scheduler, "schedule", broken)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        step(scheduler, side)
    assert list(scheduler.waiting) == [request]


@pytest.mark.parametrize(
    ("stated", "used"),
    [(40, 40), ("40", 40), (0, 0), (-3, 0), ("many", 0), (None, 0), (2**40, 0), (float("nan"), 0), ([1], 0)],
)
def test_an_unusable_length_for_the_oracle_counts_as_none(
    stated: Any, used: int, scheduler: SchedulerModel, side: SchedulerSide
) -> None:
    request = make_request(0, 4, 3)
    request.sampling_params.extra_args = {XARG_OUTPUT_TOKENS: stated}
    scheduler.add_request(request)
    (event,) = side._open_requests()
    assert event.exact_output_tokens == used


def test_under_a_user_priority_policy_the_order_is_left_alone(tmp_path: Path, lines: list[str]) -> None:
    scheduler = SchedulerModel(slots=2, blocks=50)
    scheduler.scheduler_config.policy = "priority"
    side = SchedulerSide(scheduler, EngineConfig(enabled=True, directory=tmp_path))
    scheduler.side = side
    try:
        for number in range(3):
            scheduler.add_request(make_request(number, 4, 3))
        side._ordering.before = broken  # type: ignore[method-assign]  # must not be called
        for _ in range(8):
            step(scheduler, side)
        assert scheduler.finished == ["r0", "r1", "r2"]
        assert not side.off
        assert any("'priority'" in line and "leaves its order alone" in line for line in lines)
    finally:
        side.stop()
