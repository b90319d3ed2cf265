"""Only one operator acts, whatever their clocks, the API server and the order of things do."""

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail_operator.cluster_api.lease import Elector, LeaseConfig, LeaseConflictError


class FakeLeases:
    """An API server's Leases: versions, conflicts, and times when it is away."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    async def get(self, name: str) -> dict[str, Any] | None:
        self._check()
        return copy.deepcopy(self.lease)

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise LeaseConflictError(lease["metadata"]["name"])
        return self._store(lease)

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is None or lease["metadata"]["resourceVersion"] != str(self.version):
            raise LeaseConflictError(lease["metadata"]["name"])
        return self._store(lease)

    def _check(self) -> None:
        if self.away:
            raise ConnectionError("the API server is away")

    def _store(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = copy.deepcopy(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


class World:
    """Two electors whose clocks begin at different times and run alike."""

    def __init__(self) -> None:
        self.api = FakeLeases()
        self.now_s = 0.0
        self.electors = [self.elector("one", 0.0), self.elector("two", 30.0)]

    def elector(self, name: str, skew_s: float) -> Elector:
        return Elector(self.api, LeaseConfig("trail", "trail-system", name), lambda: self.now_s + skew_s)

    def leaders(self) -> list[int]:
        return [i for i, elector in enumerate(self.electors) if elector.is_leader()]


EVENT = st.one_of(
    st.tuples(st.just("attempt"), st.integers(0, 1)),
    st.tuples(st.just("release"), st.integers(0, 1)),
    st.tuples(st.just("restart"), st.integers(0, 1)),
    st.tuples(st.just("pass"), st.floats(0, 8)),
    st.tuples(st.just("away"), st.booleans()),
    st.tuples(st.just("meddle"), st.just(0)),
)


@given(st.lists(EVENT, max_size=80))
def test_never_two(events: list[tuple[str, Any]]) -> None:
    async def story() -> None:
        world = World()
        for what, value in events:
            if what == "attempt":
                await world.electors[value].attempt()
            elif what == "release":
                await world.electors[value].release()
            elif what == "restart":
                world.electors[value] = world.elector(("one", "two")[value], 30.0 * value)
            elif what == "pass":
                world.now_s += value
            elif what == "away":
                world.api.away = value
            elif world.api.lease is not None:
                world.api._store(
                    {**world.api.lease, "metadata": {**world.api.lease["metadata"], "labels": {}}}
                )
            assert len(world.leaders()) <= 1

    asyncio.run(story())


async def test_the_second_takes_over_after_the_lease_has_run_out_and_not_before() -> None:
    world = World()
    one, two = world.electors
    await one.attempt()
    await two.attempt()
    assert world.leaders() == [0]
    for _ in range(14):
        world.now_s += 1.0
        await two.attempt()
        assert 1 not in world.leaders()
    assert world.leaders() == []  # the first has stopped by itself
    world.now_s += 1.0
    await two.attempt()
    assert world.leaders() == [1]
    await one.attempt()
    assert world.leaders() == [1]
    assert world.api.lease is not None
    assert world.api.lease["spec"]["holderIdentity"] == "two"
    assert world.api.lease["spec"]["leaseTransitions"] == 2


async def test_a_holder_that_renews_stays_and_one_that_goes_lets_the_next_in_at_once() -> None:
    world = World()
    one, two = world.electors
    for _ in range(30):
        world.now_s += 3.0
        await one.attempt()
        await two.attempt()
        assert world.leaders() == [0]
    await one.release()
    assert world.leaders() == []
    await two.attempt()
    assert world.leaders() == [1]


async def test_an_api_server_away_costs_the_lead_only_after_the_deadline() -> None:
    world = World()
    one = world.electors[0]
    await one.attempt()
    world.api.away = True
    world.now_s += 9.0
    await one.attempt()
    assert one.is_leader()
    world.now_s += 1.5
    assert not one.is_leader()
    world.api.away = False
    await one.attempt()
    assert one.is_leader()  # nobody else has taken it


async def test_a_lease_with_rubbish_is_taken_over_in_time() -> None:
    world = World()
    rubbish = {"metadata": {"name": "trail"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": "soon"}}
    world.api._store(rubbish)
    for _ in range(16):
        await world.electors[0].attempt()
        world.now_s += 1.0
    assert world.leaders() == [0]


async def test_run_renews_until_it_is_stopped_and_gives_up_the_lease() -> None:
    api = FakeLeases()
    config = LeaseConfig("trail", "trail-system", "one", duration_s=2, deadline_s=1.0, renew_s=0.05)
    elector, stop = Elector(api, config), asyncio.Event()
    task = asyncio.create_task(elector.run(stop))
    while api.version < 5:
        await asyncio.sleep(0.01)
    assert elector.is_leader()
    stop.set()
    await task
    assert not elector.is_leader()
    assert api.lease is not None
    assert api.lease["spec"]["holderIdentity"] == ""


@pytest.mark.parametrize("times", [(15, 20.0, 3.0), (15, 10.0, 12.0), (0, 10.0, 3.0)])
def test_times_that_cannot_keep_two_apart_are_refused(times: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="shorter than the next"):
        LeaseConfig("trail", "trail-system", "one", *times)
    with pytest.raises(ValueError, match="identity"):
        LeaseConfig("trail", "trail-system", "")
