"""What the probes of the operator say: by its parts, over time, and as a server."""

import asyncio
from typing import Any

import aiohttp
import pytest

from trail_operator import health
from trail_operator.admission.review import View
from trail_operator.admission.webhook import Webhook, listening
from trail_operator.cluster_api.lease import Elector, LeaseConfig
from trail_operator.health import ALIVE_WITHIN_S, READY_WITHIN_S, Health
from trail_operator.metrics import Metrics
from trail_operator.settings import InjectionSettings


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def working(clock: Clock) -> Health:
    found = Health(clock)
    found.looked()
    found.watches.works()
    found.lease.works()
    return found


def test_nothing_is_ready_before_everything_has_worked_once() -> None:
    found = Health(Clock())
    for begin in (found.looked, found.watches.works, found.lease.works):
        assert not found.ready()[0]
        assert found.alive()[0]
        begin()
    assert found.ready()[0]


def test_an_operator_that_waits_for_the_cluster_is_alive() -> None:
    """The resource TrailPolicy may come hours later; the watches begin only then."""
    clock = Clock()
    found = Health(clock)
    for _ in range(20):
        clock.now_s += ALIVE_WITHIN_S / 2
        found.cluster.fails("404: no TrailPolicy")
        assert found.alive()[0]
        assert not found.ready()[0]
    clock.now_s += ALIVE_WITHIN_S + 1
    assert not found.alive()[0]
    assert "404" in found.alive()[1]


@pytest.mark.parametrize("part", ["watches", "lease"])
def test_a_part_that_stays_away_makes_unready_with_its_reason_and_comes_back(part: str) -> None:
    clock = Clock()
    found = working(clock)
    other = found.lease if part == "watches" else found.watches
    mine = getattr(found, part)
    clock.now_s += READY_WITHIN_S
    mine.fails("KeyError: uid not found: 65532")
    other.works()
    assert found.ready()[0]
    clock.now_s += 1.0
    ready, said = found.ready()
    assert not ready
    assert f"[-] {part} worked {READY_WITHIN_S + 1:.0f} s ago: KeyError: uid not found: 65532" in said
    assert found.alive()[0]
    mine.works()
    assert found.ready()[0]


@pytest.mark.parametrize("part", ["watches", "lease"])
def test_what_fails_for_long_is_alive_and_what_hangs_is_not(part: str) -> None:
    """A restart would not mend a refused permission, and would take the webhook away meanwhile."""
    clock = Clock()
    found = working(clock)
    for _ in range(10):
        clock.now_s += ALIVE_WITHIN_S / 2
        found.watches.fails("403")
        found.lease.fails("403")
    assert found.alive()[0]
    other = found.lease if part == "watches" else found.watches
    clock.now_s += ALIVE_WITHIN_S / 2 + 1
    other.tries()
    clock.now_s += ALIVE_WITHIN_S / 2
    other.tries()
    assert not found.alive()[0]


class Leases:
    """Answers, or raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.lease: dict[str, Any] | None = None

    async def get(self, name: str) -> dict[str, Any] | None:
        if self.error is not None:
            raise self.error
        return self.lease

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        return await self.replace(lease)

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": "1"}}
        return self.lease


async def test_the_lease_counts_as_read_by_who_holds_it_and_by_who_does_not() -> None:
    clock, api = Clock(), Leases()
    parts = [Health(clock).lease, Health(clock).lease]
    holder, other = (
        Elector(api, LeaseConfig("l", "n", name), clock, health=part)
        for name, part in zip(("a", "b"), parts, strict=True)
    )
    await holder.attempt()
    await other.attempt()
    assert holder.is_leader()
    assert not other.is_leader()
    assert all(part.ready for part in parts)
    api.error = OSError("no route")
    clock.now_s += READY_WITHIN_S + 1
    await other.attempt()
    assert not parts[1].ready
    assert "OSError: no route" in parts[1].describe()


async def test_the_servers_answer_probes_by_it() -> None:
    clock = Clock()
    found = Health(clock)
    webhook = Webhook(lambda: View({}, InjectionSettings("s", "e")), lambda _: None, Metrics(), found)
    async with (
        listening(webhook.plain_app(), "127.0.0.1", 0) as plain,
        listening(webhook.app(), "127.0.0.1", 0) as hook,
        aiohttp.ClientSession() as session,
    ):

        async def status(port: int, where: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{where}") as answer:
                return answer.status, await answer.text()

        for port in (plain, hook):
            assert (await status(port, "/readyz"))[0] == 503
            assert (await status(port, "/healthz"))[0] == 200
        found.looked()
        found.watches.works()
        found.lease.works()
        for port in (plain, hook):
            assert (await status(port, "/readyz"))[0] == 200
        clock.now_s += health.ALIVE_WITHIN_S + 1
        found.lease.tries()
        for port in (plain, hook):
            code, said = await status(port, "/healthz")
            assert code == 503
            assert "watches" in said
    await asyncio.sleep(0)
