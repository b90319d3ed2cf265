"""What the engine reports of a request's way: every change once, with its cause, and the sum at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduler_model import SchedulerModel, make_request

from trail.engine.order.side import SchedulerSide
from trail.engine.start.config import EngineConfig
from trail.policy.ranks import Terms
from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec
from trail.wire.board import BOARD_ROW, BoardHeader, BoardWriter
from trail.wire.changes import Cause, Change
from trail.wire.keys import request_key
from trail.wire.lifecycle import Changed, Finished, Started
from trail.wire.names import board_path

NEVER_SILENT_NS = 10**15


class Engine:
    """A scheduler model with TRAIL's side, and a sidecar that knows every length beforehand."""

    def __init__(
        self, directory: Path, spec: PolicySpec, slots: int, blocks: int, board: bool = True
    ) -> None:
        self.scheduler = SchedulerModel(slots, blocks)
        self.spec = spec
        self.writer = BoardWriter.create(board_path(directory, 0), 64) if board else None
        if self.writer is not None:
            self.writer.beat()
        config = EngineConfig(enabled=True, directory=directory, heartbeat_ns=NEVER_SILENT_NS)
        self.side = SchedulerSide(self.scheduler, config)
        self.scheduler.side = self.side
        self.events: list[Any] = []
        self.side._stream.report = self.events.append  # type: ignore[method-assign]  # in place of a stream

    def add(self, number: int, prompt: int, length: int) -> None:
        self.scheduler.add_request(make_request(number, prompt, length))

    def publish(self) -> None:
        table, requests = self.side._table, list(self.scheduler.requests.values())
        length = np.array([request.max_tokens for request in requests], np.float64)
        age = np.array([request.num_output_tokens for request in requests], np.float64)
        ranks = rank_requests(
            self.spec, initial=length, remaining=length - age, exact=np.zeros(len(length)), age=age,
            prompt_tokens=[request.num_prompt_tokens for request in requests],
        )  # fmt: skip
        slots = np.array([table.by_id[request.request_id] for request in requests], np.int64)
        rows = np.zeros(len(requests), BOARD_ROW)
        rows["key"], rows["rank"], rows["slope"] = table.key[slots], ranks.rank, ranks.slope
        rows["initial"], rows["age"], rows["cutoff"] = length, age, ranks.cutoff
        assert self.writer is not None
        header = BoardHeader(1, 0, 0, **vars(Terms.of(self.spec, mean_initial=10.0)))
        self.writer.publish(slots, rows, header)

    def step(self) -> None:
        if self.writer is not None:
            self.publish()
        self.side.before(throttled=False)
        try:
            output = self.scheduler.schedule()
        finally:
            self.side.restore()
        self.side.after(output)
        assert not self.side._failed_step
        self.scheduler.update()

    def run(self) -> None:
        while self.scheduler.requests:
            self.step()

    def changes(self, number: int) -> list[Changed]:
        key = request_key(f"r{number}")
        return [event for event in self.events if isinstance(event, Changed) and event.key == key]

    def names(self, number: int) -> list[Change]:
        return [event.change for event in self.changes(number)]

    def denials(self, number: int) -> list[tuple[Cause, str]]:
        ids = {0: "", **{request_key(f"r{i}"): f"r{i}" for i in range(10)}}
        return [(e.cause, ids[e.other]) for e in self.changes(number) if e.change == Change.DENIED]

    def end(self, number: int) -> Finished:
        key = request_key(f"r{number}")
        (event,) = (event for event in self.events if isinstance(event, Finished) and event.key == key)
        return event


Make = Callable[..., Engine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Engine] = []

    def engine(spec: PolicySpec, slots: int = 1, blocks: int = 50, board: bool = True) -> Engine:
        made.append(Engine(tmp_path, spec, slots, blocks, board))
        return made[-1]

    yield engine
    for engine_ in made:
        engine_.side.stop()


def test_a_request_that_gives_way_and_comes_back(make: Make) -> None:
    engine = make(PolicySpec("trail", 1.0))
    engine.add(0, prompt=4, length=20)
    engine.step()
    engine.step()
    engine.add(1, prompt=4, length=3)
    engine.run()
    assert engine.names(0) == [Change.ADMITTED, Change.FIRST_TOKEN, Change.PREEMPTED, Change.RESUMED]
    assert engine.names(1) == [Change.ADMITTED, Change.FIRST_TOKEN]
    admitted, first, preempted, resumed = engine.changes(0)
    assert (admitted.age, admitted.rank, first.age) == (0, 20.0, 1)
    assert (preempted.age, preempted.cause, preempted.other) == (2, Cause.SLOT, request_key("r1"))
    assert (resumed.age, resumed.rank) == (2, 18.0)
    times = [event.time_ns for event in engine.changes(0)]
    assert times == sorted(times)
    long, short = engine.end(0).summary, engine.end(1).summary
    assert long is not None
    assert short is not None
    assert (long.policy_preemptions, long.memory_preemptions, long.granted) == (1, 0, 0)
    assert (short.policy_preemptions, short.granted) == (0, 1)
    assert (long.admitted_ns, long.first_token_ns) == (admitted.time_ns, first.time_ns)
    began = next(event for event in engine.events if isinstance(event, Started))
    assert began.summary is not None
    assert long.queued_ns == began.summary.queued_ns
    waited_ns = (admitted.time_ns - long.queued_ns) + (resumed.time_ns - preempted.time_ns)
    assert long.waited_ns == waited_ns
    assert long.ended_ns >= times[-1]


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        (PolicySpec("trail", 0.0), Cause.PROTECTED),
        (PolicySpec("trail", 1.0, preempt_ratio=100.0), Cause.RATIO),
        (PolicySpec("trail", 1.0, max_preemptions=0), Cause.LIMIT),
    ],
)
def test_a_denied_preemption_says_why_and_says_it_once(make: Make, spec: PolicySpec, cause: Cause) -> None:
    engine = make(spec)
    engine.add(0, prompt=4, length=20)
    engine.step()
    engine.step()
    engine.add(1, prompt=4, length=3)
    engine.run()
    assert engine.denials(1) == [(cause, "r0")]
    assert engine.denials(0) == []
    summary = engine.end(1).summary
    assert summary is not None
    assert list(summary.denied) == [cause]
    (denial,) = (e for e in engine.changes(1) if e.change == Change.DENIED)
    assert denial.rank == 3.0


def test_a_slot_that_would_not_bring_enough_memory_is_denied_for_memory(make: Make) -> None:
    engine = make(PolicySpec("trail", 1.0), slots=2, blocks=8)
    for number in (0, 1):
        engine.add(number, prompt=2, length=12)
    engine.step()
    engine.add(2, prompt=30, length=1)
    engine.step()
    assert (Cause.MEMORY, "r1") in engine.denials(2) or (Cause.MEMORY, "r0") in engine.denials(2)
    engine.run()
    assert engine.end(2).output_tokens == 1


def test_room_made_in_memory_is_a_cause_of_its_own(make: Make) -> None:
    engine = make(PolicySpec("trail", 1.0), slots=4, blocks=8)
    engine.add(0, prompt=16, length=10)
    engine.step()
    engine.add(1, prompt=20, length=2)
    engine.run()
    preempted = [e for e in engine.changes(0) if e.change == Change.PREEMPTED]
    assert [(e.cause, e.other) for e in preempted] == [(Cause.ROOM, request_key("r1"))]


def test_a_full_cache_is_vllms_own_cause(make: Make) -> None:
    engine = make(PolicySpec("fcfs"), slots=2, blocks=6)
    for number in (0, 1):
        engine.add(number, prompt=4, length=14)
    engine.run()
    preempted = [e for e in engine.changes(1) if e.change == Change.PREEMPTED]
    assert {(e.cause, e.other) for e in preempted} == {(Cause.KV_FULL, 0)}
    summary = engine.end(1).summary
    assert summary is not None
    assert summary.memory_preemptions == len(preempted) == engine.end(1).preemptions
    assert all(e.rank is None for e in engine.changes(1))  # vLLM's own order


def test_without_a_sidecar_steps_are_counted_as_fallbacks_and_changes_go_on(make: Make) -> None:
    engine = make(PolicySpec("trail"), board=False)
    engine.add(0, prompt=4, length=5)
    engine.step()
    engine.add(1, prompt=4, length=1)
    engine.run()
    assert engine.names(1) == [Change.ADMITTED, Change.FIRST_TOKEN]
    first, second = engine.end(0).summary, engine.end(1).summary
    assert first is not None
    assert second is not None
    assert (first.fallback_steps, second.fallback_steps) == (5, 5)


def test_open_requests_are_sent_again_with_what_they_have_been_through(make: Make) -> None:
    engine = make(PolicySpec("trail", 1.0))
    engine.add(0, prompt=4, length=20)
    engine.step()
    engine.step()
    engine.add(1, prompt=4, length=3)
    engine.step()
    long, short = engine.side._open_requests()
    assert long.summary is not None
    assert short.summary is not None
    assert (long.summary.running, long.summary.policy_preemptions) == (False, 1)
    assert long.summary.first_token_ns > long.summary.admitted_ns > 0
    assert (short.summary.running, short.summary.granted) == (True, 1)


def test_a_quiet_step_reports_nothing(make: Make) -> None:
    engine = make(PolicySpec("trail", 0.5), slots=4)
    for number in range(3):
        engine.add(number, prompt=4, length=30)
    for _ in range(3):
        engine.step()
    told = len(engine.events)
    for _ in range(10):
        engine.step()
    assert len(engine.events) == told
