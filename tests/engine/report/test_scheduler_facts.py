"""What the scheduler's side notes of a request at its arrival: time, deadline, class, work."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scheduler_model import SchedulerModel, make_request

from trail.engine.order.side import SchedulerSide
from trail.engine.start.config import EngineConfig
from trail.wire.names import XARG_DEADLINE


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[SchedulerModel]:
    scheduler = SchedulerModel(slots=2, blocks=50)
    scheduler.side = SchedulerSide(scheduler, EngineConfig(enabled=True, directory=tmp_path))
    yield scheduler
    scheduler.side.stop()


@pytest.mark.parametrize(
    ("stated", "used_s"),
    [
        (2, 2.0),
        (0.25, 0.25),
        (None, math.inf),
        (0, None),
        (-1.5, None),
        ("3", None),
        (True, None),
        (float("nan"), None),
        (10**400, None),
        ([1], None),
    ],
)
def test_a_deadline_is_a_positive_number_of_seconds_or_none_at_all(
    stated: Any, used_s: float | None, scheduler: SchedulerModel, trail_log: list[str]
) -> None:
    for number in range(2):
        request = make_request(number, 4, 3)
        request.sampling_params.extra_args = {XARG_DEADLINE: stated}
        scheduler.add_request(request)
    table = scheduler.side._table
    slots = [table.by_id[f"r{number}"] for number in range(2)]
    expected = math.inf if used_s is None else used_s
    assert (table.deadline_s[slots] - table.arrival_s[slots]).tolist() == pytest.approx([expected] * 2)
    said = [line for line in trail_log if XARG_DEADLINE in line]
    assert len(said) == (used_s is None), "said once, and only of what cannot be used"


def test_arrival_class_and_work_are_noted(scheduler: SchedulerModel) -> None:
    for number, prompt in enumerate((4, 9)):
        request = make_request(number, prompt, 3)
        request.priority = 7 * number
        scheduler.add_request(request)
    table = scheduler.side._table
    slots = [table.by_id[f"r{number}"] for number in range(2)]
    assert table.priority[slots].tolist() == [0, 7]
    assert table.uncomputed[slots].tolist() == [4, 9]
    assert 0 < table.arrival_s[slots[0]] <= table.arrival_s[slots[1]]
    assert table.deadline_s[slots].tolist() == [math.inf, math.inf]


def test_what_gave_way_has_all_of_it_to_compute_again(scheduler: SchedulerModel) -> None:
    request = make_request(0, 4, 30)
    scheduler.add_request(request)
    for _ in range(3):
        scheduler.schedule()
        scheduler.update()
    scheduler.running.remove(request)
    scheduler._preempt_request(request, 0.0)
    table = scheduler.side._table
    slot = table.by_id["r0"]
    assert (table.uncomputed[slot], table.age[slot], bool(table.admitted[slot])) == (7, 3, True)
