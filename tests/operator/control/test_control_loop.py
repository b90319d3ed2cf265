"""The operator's loop with real Redis and simulated pods: what it decides, and what it survives."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from loop_kit import REPORT, Plant, Pod, RedisServer

from trail.policy.controller import ControllerState, Objective, decide, initial_state
from trail.wire.redis_schema import Keys, PodReport
from trail_operator.control.loop import Change, ControlLoop, Target, aggregate
from trail_operator.control.store import Store, connect, decode_state, encode_state

WORKLOAD = "shop/deployment/llama"
CHEAP, EXPENSIVE = 0.001, 0.5


class Operator:
    """One operator: its loop on its own connection."""

    def __init__(
        self, url: str, workloads: list[str], *, leads: bool = True, target: Target | None = None
    ) -> None:
        self.changes: list[Change] = []
        self.leads = leads
        self.store = Store(connect(url))
        self.loop = ControlLoop(
            self.store, is_leader=lambda: self.leads, on_change=self._hear, interval_s=0.1
        )
        for workload in workloads:
            self.loop.set_target(workload, target or Target())
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.loop.run(self._stop))

    async def _hear(self, change: Change) -> None:
        self.changes.append(change)

    async def kill(self) -> None:
        """No goodbye: what was in flight is cut."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.store.close()


@asynccontextmanager
async def running(
    url: str, plant: Plant, *, pods: int = 3, workloads: tuple[str, ...] = (WORKLOAD,)
) -> AsyncIterator[list[Pod]]:
    there = [Pod(url, w, f"pod-{i}", plant) for w in workloads for i in range(pods)]
    try:
        yield there
    finally:
        for pod in there:
            pod.link._stop.set()
        for pod in there:
            pod.stop()


async def soon(condition: Callable[[], Any], limit_s: float = 90.0) -> Any:
    for _ in range(int(limit_s / 0.05)):
        if answer := condition():
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError("it never came true")


async def test_c_follows_the_load_and_every_change_is_explained(server: RedisServer) -> None:
    plant = Plant(CHEAP)
    async with running(server.url, plant) as pods:
        operator = Operator(server.url, [WORKLOAD])
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        plant.cost = EXPENSIVE
        await soon(lambda: all(pod.c == 0.0 for pod in pods))
        status = operator.loop.status(WORKLOAD)
        assert (status.c, status.pods, status.degraded) == (0.0, 3, "")
        await soon(lambda: operator.loop.status(WORKLOAD).following == 3)
        generations = [change.generation for change in operator.changes]
        assert generations == sorted(set(generations))
        assert all(change.reason and change.pressure is not None for change in operator.changes)
        assert operator.changes[0].before is None
        assert all(b.before == a.c for a, b in zip(operator.changes, operator.changes[1:], strict=False))
        await operator.kill()


async def test_redis_away_is_said_and_heals_also_when_its_data_is_lost(server: RedisServer) -> None:
    async with running(server.url, Plant(CHEAP)) as pods:
        operator = Operator(server.url, [WORKLOAD])
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        for end in (server.kill, server.lose_data):
            end()
            await soon(lambda: "Redis" in operator.loop.degraded)
            assert all(pod.c == 1.0 for pod in pods)
            server.start()
            await soon(lambda: operator.loop.degraded == "" and operator.loop.status(WORKLOAD).following == 3)
            assert all(pod.c == 1.0 for pod in pods)
        client = server.client()
        assert float(client.hget(Keys(WORKLOAD).c, "c")) == 1.0
        assert [change.c for change in operator.changes].count(1.0) == 2  # written again after the loss
        await operator.kill()


async def test_an_operator_that_comes_back_goes_on_where_it_was(server: RedisServer) -> None:
    plant = Plant(CHEAP)
    async with running(server.url, plant) as pods:
        operator = Operator(server.url, [WORKLOAD])
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        await operator.kill()
        told = [len(pod.told) for pod in pods]
        await asyncio.sleep(1.0)
        assert [len(pod.told) for pod in pods] == told  # without an operator nothing changes
        second = Operator(server.url, [WORKLOAD])
        await soon(lambda: second.loop.status(WORKLOAD).following == 3)
        await asyncio.sleep(0.5)
        assert second.changes == []
        plant.cost = EXPENSIVE
        await soon(lambda: all(pod.c == 0.0 for pod in pods))
        await second.kill()


async def test_an_operator_without_redis_and_memory_takes_up_what_pods_apply(server: RedisServer) -> None:
    async with running(server.url, Plant(math.nan)) as pods:
        first = Operator(server.url, [WORKLOAD], target=Target(fixed=0.7))
        await soon(lambda: all(pod.c == 0.7 for pod in pods))
        await first.kill()
        server.lose_data()
        server.start()
        # The cost is unknown, so the controller goes to its start, two levels at a time from what pods have.
        second = Operator(server.url, [WORKLOAD])
        await soon(lambda: second.changes)
        assert second.changes[0].c == 0.2
        await soon(lambda: all(pod.c == 0.02 for pod in pods))
        await second.kill()


async def test_of_two_operators_that_both_think_they_lead_c_comes_from_one_line(server: RedisServer) -> None:
    async with running(server.url, Plant(CHEAP)) as pods:
        both = [Operator(server.url, [WORKLOAD]), Operator(server.url, [WORKLOAD])]
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        generations = [record.generation for record in pods[0].told]
        assert generations == sorted(set(generations))
        written = [change.generation for operator in both for change in operator.changes]
        assert len(written) == len(set(written))
        for operator in both:
            await operator.kill()


async def test_one_that_does_not_lead_writes_nothing_and_takes_over_without_a_jump(
    server: RedisServer,
) -> None:
    plant = Plant(CHEAP)
    async with running(server.url, plant) as pods:
        first, second = Operator(server.url, [WORKLOAD]), Operator(server.url, [WORKLOAD], leads=False)
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        assert second.changes == []
        first.leads, second.leads = False, True
        await soon(lambda: second.loop.status(WORKLOAD).following == 3)
        plant.cost = EXPENSIVE
        await soon(lambda: all(pod.c == 0.0 for pod in pods))
        assert second.changes[0].before == 1.0
        assert all(change.c == 1.0 or change.c > 0 for change in first.changes)
        await first.kill()
        await second.kill()


async def test_a_pod_with_rubbish_is_named_and_changes_nothing(server: RedisServer) -> None:
    async with running(server.url, Plant(CHEAP), pods=4) as pods:
        client, keys = server.client(), Keys(WORKLOAD)
        operator = Operator(server.url, [WORKLOAD])
        now_ms = int(client.time()[0]) * 1000
        client.hset(keys.pod("liar"), mapping={"version": "1", "waiting": "lots"})
        client.zadd(
            keys.pods, {"liar": now_ms, "no name!": now_ms, "\udcff".encode("utf-8", "surrogateescape"): 1}
        )
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        rejected = operator.loop.status(WORKLOAD).rejected
        assert rejected["liar"].field == "interval_s"
        assert rejected["no name!"].field == "pod"
        assert operator.loop.status(WORKLOAD).pods == 4
        await operator.kill()


async def test_a_pod_whose_numbers_are_in_range_but_untrue_does_not_move_c(server: RedisServer) -> None:
    lies = Plant(cost=1e4, prompt=1e7)
    async with running(server.url, Plant(CHEAP), pods=4) as pods:
        liar = Pod(server.url, WORKLOAD, "liar", lies)
        operator = Operator(server.url, [WORKLOAD])
        await soon(lambda: all(pod.c == 1.0 for pod in pods))
        await asyncio.sleep(1.5)
        assert all(pod.c == 1.0 for pod in pods)
        liar.stop()
        await operator.kill()


async def test_pods_that_stopped_reporting_are_not_heard(server: RedisServer) -> None:
    async with running(server.url, Plant(EXPENSIVE), pods=2) as pods:
        operator = Operator(server.url, [WORKLOAD])
        await soon(lambda: all(pod.c == 0.0 for pod in pods))
        for pod in pods:
            pod.stop()
        await soon(lambda: operator.loop.status(WORKLOAD).pods == 0)
        assert operator.loop.status(WORKLOAD).c == 0.0
        await operator.kill()


async def test_a_fixed_c_is_written_and_a_removed_workload_is_forgotten(server: RedisServer) -> None:
    async with running(server.url, Plant(EXPENSIVE)) as pods:
        operator = Operator(server.url, [WORKLOAD], target=Target(fixed=0.35))
        await soon(lambda: all(pod.c == 0.35 for pod in pods))
        operator.loop.set_target(WORKLOAD, Target(Objective(c_min=0.05, c_max=0.2)))
        await soon(lambda: all(pod.c == 0.05 for pod in pods))
        await operator.loop.remove(WORKLOAD)
        assert not server.client().exists(Keys(WORKLOAD).c)
        assert all(pod.c == 0.05 for pod in pods)
        await operator.kill()


HONEST = st.lists(st.floats(50, 150), min_size=3, max_size=30)


@given(HONEST, st.integers(0, 29), st.floats(0, 1e6))
def test_one_pod_cannot_carry_the_aggregate_out_of_what_the_others_say(
    honest: list[float], place: int, lie: float
) -> None:
    values = list(honest)
    values[place % len(values)] = lie
    others = [v for i, v in enumerate(values) if i != place % len(values)]
    reports = [replace(REPORT, waiting=v, generated_s=v, recompute_cost=v, prompt_tokens=v) for v in values]
    pressure = aggregate(reports)
    assert pressure is not None
    for name in ("waiting", "generated_s", "recompute_cost", "prompt_tokens"):
        assert min(others) - 1e-9 <= getattr(pressure, name) <= max(others) + 1e-9


def test_what_pods_do_not_know_is_left_out_and_no_pod_is_no_pressure() -> None:
    assert aggregate([]) is None
    unknown = replace(REPORT, recompute_cost=math.nan, free_blocks=math.nan)
    pressure = aggregate([unknown, REPORT])
    assert pressure is not None
    assert pressure.recompute_cost == REPORT.recompute_cost
    nothing = aggregate([unknown])
    assert nothing is not None
    assert math.isnan(nothing.recompute_cost)
    assert math.isnan(nothing.free_blocks)


def test_the_controllers_memory_survives_and_rubbish_does_not() -> None:
    state = initial_state(Objective())
    for _ in range(5):
        pressure = aggregate([REPORT])
        assert pressure is not None
        state = decide(pressure, state, Objective()).state
    assert decode_state(encode_state(state).encode()) == state
    unseen = decode_state(encode_state(ControllerState(c=0.1)).encode())
    assert unseen is not None
    assert math.isnan(unseen.recompute_cost)
    text = encode_state(state)
    spoilt = [
        text.replace('"calm": 5', f'"calm": {value}') for value in ("1.5", "-5", "true", "1e999", '"5"')
    ] + [text.replace('"version": 1', '"version": 2'), text.replace('"calm"', '"clam"'), text[:-5]]
    assert text not in spoilt
    for rubbish in (None, b"", b"[]", b"null", b"\xff\xfe", *(x.encode() for x in spoilt)):
        assert decode_state(rubbish) is None, rubbish


def test_reports_are_those_that_the_schema_knows() -> None:
    pressure = aggregate([REPORT])
    assert pressure is not None
    shared = set(type(pressure).__dataclass_fields__)
    assert shared <= set(PodReport.__dataclass_fields__)
