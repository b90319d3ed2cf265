"""The engine's order, on vLLM's own scheduler, and the simulator's: the same plan in every step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from bare_scheduler import bare_request, give_tokens, scheduler_arguments
from generated import POLICIES, TICKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from trail.engine.order import ordering
from trail.engine.order.ordering import Ordering
from trail.engine.order.queues import Queues
from trail.engine.order.slots import SlotTable
from trail.engine.report.summaries import Summaries
from trail.policy.ranks import Terms
from trail.policy.spec import parse_policy
from trail.policy.step import Plan
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.first_come import FirstComeOrder
from trail.simulation.engine.predictors import Exact, Lognormal, Predictions
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.engine.steptime import StepTicks
from trail.simulation.engine.workload import Workload
from trail.wire.board import BOARD_ROW, BoardHeader, BoardSnapshot

STEPS = int(os.environ.get("SAME_PLAN_STEPS", "20000"))
LONGEST = 100
"""A request of so many tokens takes part in every example, so that it has as many steps."""


class Board:
    """What the sidecar would have published, without the file."""

    def __init__(self, requests: int) -> None:
        self.rows = np.zeros(requests, BOARD_ROW)
        self.header: BoardHeader | None = None
        self.update = 0

    def check(self, now_ns: int) -> bool:
        return True

    def snapshot(self, slots: Any) -> BoardSnapshot:
        assert self.header is not None
        return BoardSnapshot(self.rows[slots], self.header)


class WatchedOrdering(Ordering):
    """Keeps what it carries out, by the requests' numbers."""

    plan: Any = None

    def _carry_out(self, plan: Plan, first: list[Any]) -> None:
        running = [int(r.request_id) for r in self._running]
        self.plan = numbered(plan, running, [int(r.request_id) for r in first])
        super()._carry_out(plan, first)


def numbered(plan: Plan, running: list[int], waiting: list[int]) -> Any:
    """Order, swaps and admission limit of a plan, by the requests' numbers."""
    order = running if plan.order is None else [running[i] for i in plan.order]
    return order, [(running[v], waiting[n], cause) for v, n, cause in plan.swaps], plan.admitted


class RealScheduler(AsyncScheduler):
    """vLLM's scheduler with TRAIL's order, as TrailScheduler has it, but without guards and reports."""

    def __init__(self, board: Board, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.table = SlotTable()
        self.ordering = WatchedOrdering(Queues(self), self.table, board, Summaries(lambda _: None))
        self.limit = 0
        self.in_order: list[int] = []

    def schedule(self, *args: Any) -> Any:
        self.ordering.plan = None
        self.ordering.before(0, throttled=False)
        self.limit = self.max_num_active_reqs
        self.in_order = [int(r.request_id) for r in self.waiting][: self.ordering._in_order]
        output = super().schedule(*args)
        self.ordering.restore()
        return output

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        self.ordering.preempted(request)
        super()._preempt_request(request, *args, **kwargs)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        slot = self.table.remove(request.request_id)
        assert slot is not None
        self.ordering.forget(slot)
        return super()._free_request(request, *args, **kwargs)


class Pair:
    """A simulated engine and a real scheduler that serve the same requests, step by step."""

    def __init__(self, engine: Engine) -> None:
        config, self.engine = engine.config, engine
        self.board = Board(len(engine.work))
        self.real = RealScheduler(
            self.board,
            **scheduler_arguments(
                slots=config.slots,
                token_budget=config.token_budget,
                kv_blocks=engine.capacity_blocks,
                block_tokens=config.block_tokens,
                prefix_cache=config.prefix_cache,
                chunked_prefill=config.chunked_prefill,
                whole_prompt_must_fit=config.whole_prompt_must_fit,
            ),
        )
        self.steps = 0

    def arrive(self, begin: int, end: int) -> None:
        work, real = self.engine.work, self.real
        for number in range(begin, end):
            request = bare_request(
                number,
                int(work.prompt_tokens[number]),
                int(work.output_tokens[number]),
                self.engine.config.block_tokens,
            )
            real.add_request(request)
            arrival_s = float(work.arrival_s[number])
            real.table.add(
                request.request_id,
                arrival_s=arrival_s,
                deadline_s=arrival_s + float(work.allowed_s[number]),
                priority=int(work.priority[number]),
                uncomputed=request.num_tokens,
            )

    def publish(self, terms: Terms) -> None:
        self.board.header = BoardHeader(1, 0, 0, **vars(terms))

    def step(self, plan: Any, waiting: list[int], limit: int) -> None:
        """The real scheduler's step, after the simulated one has been put together: they are compared."""
        real, engine = self.real, self.engine
        self.steps += 1
        self.board.update += 1
        output = real.schedule()
        if plan is not None or real.ordering.plan is not None:
            assert real.ordering.plan == plan
        assert real.in_order == waiting[: len(real.in_order)]
        assert real.limit == limit
        assert [int(r.request_id) for r in real.running] == engine.running
        assert real.kv_cache_manager.block_pool.get_num_free_blocks() == engine.blocks.free
        assert real.ordering.denied == engine.journal.count.denied
        give_tokens(real, output)


class PairedFirstCome(FirstComeOrder):
    def __init__(self, pair: Pair, spec: Any) -> None:
        super().__init__(pair.engine, spec.kv_reserve_tokens)
        self._pair = pair
        pair.publish(Terms.of(spec, mean_initial=0.0))

    def arrive(self, begin: int, end: int) -> None:
        super().arrive(begin, end)
        self._pair.arrive(begin, end)

    def before(self) -> None:
        super().before()
        self._begun = list(self._waiting)

    def restore(self) -> None:
        self._pair.step(None, self._begun, self.limit)
        super().restore()


class PairedRanked(RankedOrder):
    def __init__(self, pair: Pair, spec: Any, predictions: Any) -> None:
        super().__init__(spec, pair.engine, predictions)
        self._pair = pair

    def arrive(self, begin: int, end: int) -> None:
        super().arrive(begin, end)
        self._pair.arrive(begin, end)

    def before(self) -> None:
        self._plan: Any = None
        super().before()
        self._begun = list(self._waiting.requests)

    def _carry_out(self, plan: Plan, running: list[int]) -> int:
        self._publish()
        ran, waiting = list(self._engine.running), list(self._waiting.requests)
        self._plan = numbered(plan, ran, waiting)
        return super()._carry_out(plan, running)

    def restore(self) -> None:
        self._pair.step(self._plan, self._begun, self.limit)
        super().restore()

    def _publish(self) -> None:
        """What the simulator takes the board to hold."""
        engine, pair, shown = self._engine, self._pair, self._rows
        lag = engine.config.prediction_lag
        pair.publish(self._terms)
        for ids, running in ((engine.running, True), (self._waiting.requests, False)):
            here = np.array(ids, np.int64)
            age = np.array([engine.age_of(r) if running else engine.age[r] for r in ids], np.int64)
            if running:
                age = np.maximum(age - lag, engine.resumed_age[here])
            row, row_age = shown._rows(here, age)
            table = pair.real.table
            slots = np.array([table.by_id[str(r)] for r in ids], np.int64)
            rows = np.zeros(len(ids), BOARD_ROW)
            rows["key"] = np.where(here < self._told, table.key[slots], 0)
            rows["rank"], rows["slope"], rows["cutoff"] = (
                shown.rank[row],
                shown.slope[here],
                shown.cutoff[here],
            )
            rows["age"] = row_age
            pair.board.rows[slots] = rows


@contextmanager
def least_ordered(count: int) -> Iterator[None]:
    """So few of the waiting requests put in order, at least, that the others matter."""
    before, ordering.LEAST_ORDERED = ordering.LEAST_ORDERED, count  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ordering.LEAST_ORDERED = before  # type: ignore[attr-defined]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Workload, EngineConfig, StepTicks, Predictions]:
    """Requests with priorities and deadlines, and an engine with little memory. One answer is long."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    longest = draw(st.sampled_from([4, 20, 60]))
    output = rng.integers(1, longest + 1, n)
    output[rng.integers(n)] = LONGEST
    work = Workload(
        np.cumsum(rng.choice([0.0, 0.0, 0.01, 0.05, 0.3], n)),
        rng.integers(1, draw(st.sampled_from([4, 20, 60])) + 1, n),
        output,
        rng.choice([0, 0, -1, 1], n) * draw(st.integers(0, 1)),
        rng.choice([np.inf, 0.001, 0.05, 0.5, 3.0], n) if draw(st.booleans()) else np.full(n, np.inf),
    )
    whole = work.prompt_tokens + work.output_tokens
    size, chunked = draw(st.sampled_from([1, 4, 16])), draw(st.booleans())
    need = int((-(-whole // size)).max())
    config = EngineConfig(
        slots=draw(st.integers(1, 8)),
        token_budget=draw(st.integers(2, 60)) if chunked else int(whole.max()) + draw(st.integers(0, 60)),
        kv_blocks=need + int(draw(st.sampled_from([0.0, 0.2, 0.5, 3.0])) * need),
        block_tokens=size,
        prefix_cache=draw(st.booleans()),
        chunked_prefill=chunked,
        whole_prompt_must_fit=draw(st.booleans()),
        prediction_lag=draw(st.sampled_from([0, 1, 3])),
        initial_lag=draw(st.sampled_from([0, 1, 4])),
        jumps=False,
    )
    predictor = draw(st.sampled_from([Exact(), Lognormal(0.6, 0.4, 0.9)]))
    return work, config, draw(TICKS), predictor.predict(work, draw(st.sampled_from([1, 5, 10])), rng)


def serve(case: tuple[Workload, EngineConfig, StepTicks, Predictions], policy: str) -> int:
    """Serve everything with both; the number of steps."""
    work, config, ticks, predictions = case
    spec, engine = parse_policy(policy), Engine(config, work, ticks)
    pair = Pair(engine)
    engine.run(PairedRanked(pair, spec, predictions) if spec.orders else PairedFirstCome(pair, spec))
    return pair.steps


def test_the_same_plan_in_every_step() -> None:
    steps = 0

    @settings(max_examples=max(STEPS // LONGEST, 1), deadline=None, suppress_health_check=list(HealthCheck))
    @given(pairs(), st.sampled_from(POLICIES), st.sampled_from([0, 3, ordering.LEAST_ORDERED]))
    def compared(case: Any, policy: str, least: int) -> None:
        nonlocal steps
        with least_ordered(least):
            steps += serve(case, policy)

    compared()
    assert steps >= STEPS
