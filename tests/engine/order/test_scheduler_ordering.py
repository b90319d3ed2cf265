"""Whole queues served through TRAIL's order, on a model of vLLM's scheduler and a real board."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scheduler_model import BLOCK, SchedulerModel, make_request

from trail.engine.order.board_watch import BoardWatch
from trail.engine.order.ordering import Ordering
from trail.engine.order.queues import Queues
from trail.engine.order.slots import SlotTable
from trail.engine.report.summaries import Summaries
from trail.policy.guard import boost_scale, overtake_bound
from trail.policy.ranks import Terms
from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec
from trail.wire.board import BOARD_ROW, BoardHeader, BoardWriter
from trail.wire.lifecycle import Changed

ATTACHED_NS = 10**9
CAPACITY = 64
REQUEST = st.tuples(
    st.integers(1, 12), st.integers(1, 20), st.integers(0, 40)
)  # prompt, length, arrival step


class Side:
    """Ordering and table behind the hooks that vLLM's scheduler has."""

    def __init__(self, scheduler: SchedulerModel, board: Path) -> None:
        self.table = SlotTable()
        self.events: list[Changed] = []
        self.summaries = Summaries(lambda _slot, event: self.events.append(event))
        watch = BoardWatch(board, ATTACHED_NS)
        self.ordering = Ordering(Queues(scheduler), self.table, watch, self.summaries)
        scheduler.side = self
        self.scheduler = scheduler
        self.now_ns = ATTACHED_NS
        self.policy_victims: list[Any] = []
        self.started_s: dict[str, float] = {}
        self.allowed_s: dict[str, float] = {}

    def added(self, request: Any) -> None:
        now_s = self.now_ns / 1e9
        self.table.add(
            request.request_id,
            arrival_s=now_s,
            deadline_s=now_s + self.allowed_s.get(request.request_id, math.inf),
            priority=request.priority,
            uncomputed=request.num_tokens,
        )

    def preempting(self, request: Any) -> None:
        self.ordering.preempted(request)

    def freed(self, request: Any) -> None:
        slot = self.table.remove(request.request_id)
        assert slot is not None
        self.ordering.forget(slot)

    def step(self) -> None:
        self.now_ns += 10**9
        before = list(self.scheduler.running)
        self.ordering.before(self.now_ns, throttled=False)
        self.policy_victims = [request for request in before if request not in self.scheduler.running]
        self.scheduler.schedule()
        self.ordering.restore()
        for request in self.scheduler.running:
            self.started_s.setdefault(request.request_id, self.now_ns / 1e9)


class Board:
    """The sidecar's end, with predictions by request."""

    def __init__(self, path: Path) -> None:
        self.writer = BoardWriter.create(path, CAPACITY)

    def publish(
        self,
        side: Side,
        spec: PolicySpec,
        predict: Callable[[Any], float],
        known: bool = True,
        wait_s: float = 0.0,
    ) -> None:
        requests = [side.scheduler.requests[i] for i in side.table.by_id] if known else []
        initial = np.array([predict(request) for request in requests], dtype=np.float64)
        age = np.array([request.num_output_tokens for request in requests], dtype=np.float64)
        remaining = np.maximum(initial - age, 0)
        ranks = rank_requests(
            spec,
            initial=initial,
            remaining=remaining,
            exact=np.zeros(len(requests)),
            age=age,
            prompt_tokens=[request.num_prompt_tokens for request in requests],
        )
        slots = np.array([side.table.by_id[request.request_id] for request in requests], dtype=np.int64)
        rows = np.zeros(len(requests), BOARD_ROW)
        rows["key"] = side.table.key[slots]
        rows["rank"], rows["slope"], rows["cutoff"] = ranks.rank, ranks.slope, ranks.cutoff
        rows["initial"], rows["age"] = initial, age
        header = BoardHeader(1, 0, 0, **vars(Terms.of(spec, mean_initial=10.0, wait_s=wait_s)))
        self.writer.publish(slots, rows, header)


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    directory, counter = tmp_path_factory.mktemp("boards"), itertools.count()
    return lambda: directory / f"board-{next(counter)}"


def protected(side: Side, spec: PolicySpec, request: Any, predict: Callable[[Any], float]) -> bool:
    """The definition, from the request's own state."""
    return spec.preempts and spec.cuts_off and request.num_output_tokens >= int(spec.c * predict(request))


def serve(
    path: Path,
    spec: PolicySpec,
    work: list[tuple[int, int, int]],
    predict: Callable[[Any], float],
    slots: int = 3,
    blocks: int = 20,
    waits: Sequence[float] = (0.0,),
) -> tuple[SchedulerModel, Side]:
    """Serve all of `work`, checking every step. `waits` is how long the queue is said to be, in turn."""
    scheduler = SchedulerModel(slots, blocks)
    side, board = Side(scheduler, path), Board(path)
    gave_way = Counter[str]()
    todo = sorted(enumerate(work), key=lambda item: item[1][2])
    for step in range(4000):
        while todo and todo[0][1][2] <= step:
            number, (prompt, length, _) = todo.pop(0)
            scheduler.add_request(make_request(number, prompt, length))
        if not todo and not scheduler.requests:
            break
        board.publish(side, spec, predict, wait_s=waits[step % len(waits)])
        side.step()
        present = [request.request_id for request in (*scheduler.running, *scheduler.waiting)]
        assert sorted(present) == sorted(scheduler.requests)  # nobody lost, nobody twice
        assert len(scheduler.running) <= slots
        assert scheduler.max_num_active_reqs == slots
        assert scheduler.running or not scheduler.requests  # work always goes on
        for victim in side.policy_victims:
            assert not protected(side, spec, victim, predict)
            gave_way[victim.request_id] += 1
            assert spec.max_preemptions < 0 or gave_way[victim.request_id] <= spec.max_preemptions
        scheduler.update()
    assert len(scheduler.finished) == len(work)
    board.writer.close(unlink=True)
    return scheduler, side


def by_length(request: Any) -> float:
    return float(request.max_tokens)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(REQUEST, min_size=1, max_size=14),
    st.sampled_from(["trail", "trail-prompt", "sjf", "fcfs", "mlfq", "adaptive"]),
    st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    st.sampled_from([-1.0, 0.0, 4.0, 16.0]),
    st.integers(9, 30),
)
def test_every_request_is_served_whatever_the_policy(
    boards: Callable[[], Path],
    work: list[tuple[int, int, int]],
    name: str,
    c: float,
    reserve: float,
    blocks: int,
) -> None:
    serve(boards(), PolicySpec(name, c, reserve), work, by_length, blocks=blocks, waits=(5.0, 0.0, 30.0))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(REQUEST, min_size=1, max_size=14), st.sampled_from(["trail", "adaptive"]))
def test_with_c_zero_the_policy_preempts_nobody(
    boards: Callable[[], Path], work: list[tuple[int, int, int]], name: str
) -> None:
    _, side = serve(boards(), PolicySpec(name, 0.0), work, by_length, blocks=10, waits=(20.0,))
    assert side.ordering.policy_preemptions == 0


KNOBS = st.sampled_from([0.0, 0.5, 1.0, 4.0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(REQUEST, min_size=1, max_size=14),
    KNOBS,
    st.lists(st.sampled_from([0.0, 1.0, 6.0]), min_size=1, max_size=3),
    st.sampled_from([-1.0, 16.0]),
    st.integers(9, 30),
)
def test_nobody_who_arrives_later_than_the_bound_is_started_first(
    boards: Callable[[], Path],
    work: list[tuple[int, int, int]],
    kappa: float,
    waits: list[float],
    reserve: float,
    blocks: int,
) -> None:
    spec = PolicySpec("adaptive", c=1.0, kappa=kappa, kv_reserve_tokens=reserve)
    _, side = serve(boards(), spec, work, by_length, blocks=blocks, waits=waits)
    bound = overtake_bound(kappa, max(waits), boost_scale(10.0))
    arrived = {f"r{number}": float(step) for number, (_, _, step) in enumerate(work)}
    for one, other in itertools.permutations(arrived, 2):
        if arrived[other] > arrived[one] + bound:
            assert side.started_s[other] >= side.started_s[one]


def stock_ends(work: list[tuple[int, int, int]], blocks: int) -> dict[str, int]:
    """When vLLM without TRAIL would be done with each request."""
    stock = SchedulerModel(3, blocks)
    todo = sorted(enumerate(work), key=lambda item: item[1][2])
    for step in range(4000):
        while todo and todo[0][1][2] <= step:
            number, (prompt, length, _) = todo.pop(0)
            stock.add_request(make_request(number, prompt, length))
        if not todo and not stock.requests:
            break
        stock.schedule()
        stock.update()
    return stock.ended_at


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(REQUEST, min_size=1, max_size=14), st.sampled_from([-1.0, 8.0]), st.integers(9, 40))
def test_adaptive_without_a_knob_is_first_come_first_served_with_scarce_memory_too(
    boards: Callable[[], Path], work: list[tuple[int, int, int]], reserve: float, blocks: int
) -> None:
    spec = PolicySpec("adaptive", c=1.0, kappa=0.0, kv_reserve_tokens=reserve)
    served, side = serve(boards(), spec, work, by_length, blocks=blocks, waits=(50.0,))
    limited, _ = serve(
        boards(), PolicySpec("fcfs", kv_reserve_tokens=reserve), work, by_length, blocks=blocks
    )
    assert side.ordering.policy_preemptions == 0
    assert served.ended_at == limited.ended_at
    if reserve < 0:
        assert served.ended_at == stock_ends(work, blocks)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(REQUEST, min_size=1, max_size=14),
    st.sampled_from(["sjf", "trail", "trail-prompt", "adaptive"]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_equal_predictions_are_first_come_first_served(
    boards: Callable[[], Path], work: list[tuple[int, int, int]], name: str, c: float
) -> None:
    alike = [(5, length, step) for _, length, step in work]  # to adaptive a prompt is work, too
    spec = PolicySpec(name, c, kv_reserve_tokens=-1.0)
    served, side = serve(boards(), spec, alike, lambda request: 100.0, blocks=200, waits=(9.0,))
    assert served.ended_at == stock_ends(alike, 200)
    assert side.ordering.policy_preemptions == 0


def test_a_shorter_request_takes_the_slot_of_a_longer_one(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    long, short = make_request(0, 4, 50), make_request(1, 4, 5)
    scheduler.add_request(long)
    board.publish(side, PolicySpec("trail", 0.8), by_length)
    side.step()
    scheduler.update()
    scheduler.add_request(short)
    board.publish(side, PolicySpec("trail", 0.8), by_length)
    side.step()
    assert scheduler.running == [short]
    assert list(scheduler.waiting) == [long]
    assert side.ordering.policy_preemptions == 1


ADAPTIVE = PolicySpec("adaptive", c=1.0, kappa=math.inf, kv_reserve_tokens=-1.0)


def running_then(
    path: Path, spec: PolicySpec, running: Any, newcomer: Any, steps: int = 2
) -> tuple[SchedulerModel, Side]:
    """One slot: `running` has it, `newcomer` comes two steps later."""
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    for step in range(2 + steps):
        if step in (0, 2):
            scheduler.add_request(newcomer if step else running)
        board.publish(side, spec, by_length, wait_s=10.0)
        side.step()
        scheduler.update()
    return scheduler, side


@pytest.mark.parametrize(("length", "gives_way"), [(30, True), (25, True), (23, False)])
def test_a_running_request_gives_way_only_to_one_of_half_its_size(
    boards: Callable[[], Path], length: int, gives_way: bool
) -> None:
    # Two tokens older when the newcomer of eleven comes, and one more a step later.
    _, side = running_then(boards(), ADAPTIVE, make_request(0, 4, length), make_request(1, 4, 11))
    assert side.ordering.policy_preemptions == gives_way


def test_a_request_that_gave_way_as_often_as_it_may_is_not_preempted_again_and_waits_in_its_turn(
    boards: Callable[[], Path],
) -> None:
    scheduler = SchedulerModel(1, 50)
    path = boards()
    side, board = Side(scheduler, path), Board(path)
    scheduler.add_request(make_request(0, 4, 40))
    ran: list[str] = []
    for step in range(30):
        if step in (1, 2, 12):
            scheduler.add_request(make_request(step, 4, 5))
        board.publish(side, ADAPTIVE, by_length)
        side.step()
        ran.append(scheduler.running[0].request_id)
        scheduler.update()
    # r0 gives way to r1; r2, shorter than what is left of r0, goes first; then r0 keeps its slot from r12.
    assert ran == ["r0", *["r1"] * 5, *["r2"] * 5, *["r0"] * 19]
    assert side.ordering.policy_preemptions == 1


@pytest.mark.parametrize(("priority", "allowed_s"), [(-1, math.inf), (0, 3.0)])
def test_a_class_or_a_deadline_puts_a_long_request_first(
    boards: Callable[[], Path], priority: int, allowed_s: float
) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    urgent = make_request(2, 4, 90)
    urgent.priority, side.allowed_s["r2"] = priority, allowed_s
    for request in (make_request(0, 4, 3), make_request(1, 4, 8), urgent):
        scheduler.add_request(request)
    spec = PolicySpec("adaptive", c=1.0, kappa=0.5)
    board.publish(side, spec, by_length, wait_s=10.0)
    side.step()
    assert [request.request_id for request in scheduler.waiting] == ["r0", "r1"]
    assert scheduler.running == [urgent]


def test_the_queue_is_put_in_order_when_only_its_length_changes(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    for number, length in enumerate((1, 40, 5)):
        scheduler.add_request(make_request(number, 4, length))
        side.now_ns += 10**9
    for wait_s, expected in 2 * ((0.0, ["r1", "r2"]), (30.0, ["r2", "r1"])):
        board.publish(side, PolicySpec("adaptive"), by_length, wait_s=wait_s)
        side.step()
        assert [request.request_id for request in scheduler.waiting] == expected


@pytest.mark.parametrize(
    ("slots", "blocks", "reserve", "preemptions"),
    # A slot is short: one of the first two (8 tokens) and r2 (12) run, of 200 tokens a reserve is kept.
    # Memory is short: r2 runs beside one of them where 20 + a reserve fit in 28 tokens, else alone.
    [(2, 50, 180.0, 1), (2, 50, 181.0, 0), (4, 7, 8.0, 1), (4, 7, 9.0, 2)],
)
def test_nobody_gives_way_for_one_that_the_reserve_would_keep_out(
    boards: Callable[[], Path], slots: int, blocks: int, reserve: float, preemptions: int
) -> None:
    path = boards()
    scheduler = SchedulerModel(slots, blocks)
    side, board = Side(scheduler, path), Board(path)
    for number in range(2):
        scheduler.add_request(make_request(number, 4, 40))
    for _ in range(2):
        board.publish(side, ADAPTIVE, by_length)
        side.step()
        scheduler.update()
    scheduler.add_request(make_request(2, 12, 2))
    spec = replace(ADAPTIVE, kv_reserve_tokens=reserve, max_preemptions=-1)
    for _ in range(2):
        board.publish(side, spec, by_length)
        side.step()
    assert side.ordering.policy_preemptions == preemptions
    assert ("r2" in [request.request_id for request in scheduler.running]) == (preemptions > 0)


def test_a_protected_request_keeps_its_slot_and_the_refusal_is_counted_once(
    boards: Callable[[], Path],
) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    long, short = make_request(0, 4, 50), make_request(1, 4, 5)
    scheduler.add_request(long)
    spec = PolicySpec("trail", 0.1)
    for _ in range(6):  # to age 5 = floor(0.1 * 50)
        board.publish(side, spec, by_length)
        side.step()
        scheduler.update()
    scheduler.add_request(short)
    for _ in range(3):
        board.publish(side, spec, by_length)
        side.step()
    assert scheduler.running == [long]
    assert (side.ordering.policy_preemptions, side.ordering.denied) == (0, 1)


def test_memory_is_made_for_a_shorter_request_one_step_after_vllm_found_none(
    boards: Callable[[], Path],
) -> None:
    path = boards()
    scheduler = SchedulerModel(4, 10)
    side, board = Side(scheduler, path), Board(path)
    long, short = make_request(0, 30, 9), make_request(1, 12, 2)
    scheduler.add_request(long)
    spec = PolicySpec("trail", 1.0)
    board.publish(side, spec, by_length)
    side.step()
    scheduler.update()
    scheduler.add_request(short)
    board.publish(side, spec, by_length)
    side.step()
    assert scheduler.running == [long]  # vLLM has tried and found no memory
    side.step()
    assert scheduler.running == [short]
    assert list(scheduler.waiting) == [long]


def test_the_last_of_the_running_is_the_preemptible_one_with_the_largest_rank(
    boards: Callable[[], Path],
) -> None:
    path = boards()
    scheduler = SchedulerModel(3, 50)
    side, board = Side(scheduler, path), Board(path)
    for number, length in enumerate((40, 10, 30)):
        scheduler.add_request(make_request(number, 4, length))
    board.publish(side, PolicySpec("trail", 1.0), by_length, known=False)
    side.step()
    scheduler.update()
    assert [request.max_tokens for request in scheduler.running] == [40, 10, 30]
    board.publish(side, PolicySpec("trail", 1.0), by_length)
    side.step()
    assert [request.max_tokens for request in scheduler.running] == [10, 30, 40]


def test_the_queue_follows_the_board_when_only_predictions_change(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    for number, length in enumerate((1, 40, 10)):
        scheduler.add_request(make_request(number, 4, length))
    for sign, expected in 2 * ((1.0, [10, 40]), (-1.0, [40, 10])):
        board.publish(side, PolicySpec("sjf"), lambda request, sign=sign: 50.0 + sign * request.max_tokens)
        side.step()
        assert [request.max_tokens for request in scheduler.waiting] == expected


def test_requests_the_board_does_not_know_are_in_order_of_arrival(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    for number in range(4):
        scheduler.add_request(make_request(number, 4, 40))
    for _ in range(4):
        board.publish(side, PolicySpec("sjf"), by_length, known=False)
        side.step()
        assert [request.request_id for request in scheduler.waiting] == ["r1", "r2", "r3"]
        scheduler.waiting.rotate(1)  # as vLLM does when it skips one


def test_the_kv_reserve_keeps_a_request_out_that_memory_alone_would_take(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(4, 10)
    side, board = Side(scheduler, path), Board(path)
    for number in range(3):
        scheduler.add_request(make_request(number, 8, 20))
    board.publish(side, PolicySpec("trail", 0.5, kv_reserve_tokens=20.0), by_length)
    side.step()  # of 40 tokens: 8 at once, then 16 <= 40 - 20, then 24 > 40 - 2 * 20
    assert len(scheduler.running) == 2
    assert scheduler.max_num_active_reqs == 4


def test_the_kv_reserve_holds_without_any_order(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(4, 10)
    side, board = Side(scheduler, path), Board(path)
    for number in range(3):
        scheduler.add_request(make_request(number, 8, 20 - number))
    board.publish(side, PolicySpec("fcfs", kv_reserve_tokens=20.0), by_length)
    for _ in range(3):
        side.step()
        assert [request.request_id for request in scheduler.running] == ["r0", "r1"]
        assert scheduler.max_num_active_reqs == 4
    board.publish(side, PolicySpec("fcfs"), by_length)
    side.step()
    assert len(scheduler.running) == 3


def test_a_request_the_board_does_not_know_ranks_by_the_mean(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    running = make_request(0, 4, 3)
    scheduler.add_request(running)
    board.publish(side, PolicySpec("sjf"), by_length)
    side.step()
    for number, length in enumerate((30, 5), start=1):
        scheduler.add_request(make_request(number, 4, length))
    board.publish(side, PolicySpec("sjf"), by_length)
    unknown = make_request(3, 4, 99)
    scheduler.add_request(unknown)  # the header's mean is 10
    side.step()
    assert [request.max_tokens for request in scheduler.waiting] == [5, 99, 30]


def test_without_the_board_the_queue_is_in_stock_order_again(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(2, 50)
    side, board = Side(scheduler, path), Board(path)
    for number, length in enumerate((50, 40, 30, 5, 20)):
        scheduler.add_request(make_request(number, 4, length))
    board.publish(side, PolicySpec("trail", 1.0), by_length, known=False)
    side.step()  # unknown, so the first two run
    scheduler.update()
    board.publish(side, PolicySpec("trail", 1.0), by_length)
    side.step()
    assert [request.max_tokens for request in scheduler.running] == [5, 20]
    board.writer.close(unlink=True)
    scheduler.max_num_running_reqs = 2
    side.step()
    waiting = [request.request_id for request in scheduler.waiting]
    assert waiting == ["r0", "r1", "r2"]  # those that ran before, then by arrival
    assert side.ordering.fallback_steps == 1


def test_initial_predictions_outlive_the_board(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    for number, length in enumerate((12, 34)):
        scheduler.add_request(make_request(number, 4, length))
    board.publish(side, PolicySpec("trail", 0.5), by_length)
    side.step()
    board.writer.close(unlink=True)
    side.step()
    assert side.table.initial[side.table.open_slots()].tolist() == [12.0, 34.0]


def test_a_preempted_request_does_not_come_back_in_the_same_step(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(2, 12)
    side, board = Side(scheduler, path), Board(path)
    for number, (prompt, length) in enumerate(((4, 40), (4, 30))):
        scheduler.add_request(make_request(number, prompt, length))
    spec = PolicySpec("trail", 1.0)
    board.publish(side, spec, by_length)
    side.step()
    scheduler.update()
    scheduler.add_request(make_request(2, 4, 5))
    board.publish(side, spec, by_length)
    seen: list[list[str]] = []
    stock = scheduler.schedule

    def schedule() -> Any:
        seen.append([request.request_id for request in scheduler.waiting])
        return stock()

    scheduler.schedule = schedule  # type: ignore[method-assign]  # a window on what vLLM would see
    side.step()
    assert seen == [["r2"]]
    assert [request.request_id for request in scheduler.waiting] == ["r0"]


def test_a_long_prompt_preempts_nobody_when_that_would_not_make_room(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 6)
    side, board = Side(scheduler, path), Board(path)
    running, big = make_request(0, 4, 15), make_request(1, 6 * BLOCK + 1, 1)
    scheduler.add_request(running)
    spec = PolicySpec("trail", 1.0)
    board.publish(side, spec, by_length)
    side.step()
    scheduler.update()
    scheduler.add_request(big)
    for _ in range(3):
        board.publish(side, spec, by_length)
        side.step()
    assert scheduler.running == [running]


def test_between_two_updates_a_full_engine_costs_no_look_at_the_board(
    boards: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    spec = PolicySpec("trail", 1.0)
    for number, length in enumerate((20, 30)):
        scheduler.add_request(make_request(number, 4, length))
    board.publish(side, spec, by_length)
    looks: list[int] = []
    snapshot = BoardWatch.snapshot

    def counted(watch: BoardWatch, slots: Any) -> Any:
        looks.append(len(slots))
        return snapshot(watch, slots)

    monkeypatch.setattr(BoardWatch, "snapshot", counted)
    for _ in range(5):
        side.step()
        scheduler.update()
    assert looks == [2]
    board.publish(side, spec, by_length)
    side.step()
    scheduler.update()
    assert looks == [2, 2]


def test_a_slot_that_falls_free_between_two_updates_goes_to_the_shortest(boards: Callable[[], Path]) -> None:
    path = boards()
    scheduler = SchedulerModel(1, 50)
    side, board = Side(scheduler, path), Board(path)
    spec = PolicySpec("trail", 0.0)
    for number, length in enumerate((3, 30, 20)):
        scheduler.add_request(make_request(number, 4, length))
    board.publish(side, spec, by_length)
    while scheduler.running != [scheduler.requests.get("r2")]:
        side.step()
        scheduler.update()
        assert scheduler.steps < 10
    assert [request.request_id for request in scheduler.waiting] == ["r1"]
