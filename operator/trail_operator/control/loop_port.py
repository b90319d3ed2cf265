"""The loop on c as the rest of the operator sees it: policies in, states of workloads out."""

from typing import Protocol

from trail.policy.controller import Objective
from trail_operator.control.loop import ControlLoop, LoopStatus, Target
from trail_operator.policy.resource import Bounds


class LoopPort(Protocol):
    """Controls c of workloads, `namespace/kind/name` each."""

    def follow(self, workload: str, bounds: Bounds) -> None:
        """Controls `workload` within `bounds` from now on."""
        ...

    async def leave(self, workload: str) -> None:
        """Controls it no more."""
        ...

    def state(self, workload: str) -> LoopStatus | None:
        """How it stands; None where it is not controlled."""
        ...


class NoLoop:
    """Without Redis: every pod keeps the c that it was started with."""

    def follow(self, workload: str, bounds: Bounds) -> None:
        """Nothing to do."""

    async def leave(self, workload: str) -> None:
        """Nothing to do."""

    def state(self, workload: str) -> LoopStatus | None:  # noqa: ARG002 - the protocol's
        """Nothing is known."""
        return None


class RedisLoop:
    """The control loop over Redis."""

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop
        self._followed: set[str] = set()

    def follow(self, workload: str, bounds: Bounds) -> None:
        """Controls `workload` within `bounds` from now on."""
        self._followed.add(workload)
        fixed = bounds.value if bounds.mode == "Fixed" else None
        self._loop.set_target(workload, Target(Objective(c_min=bounds.low, c_max=bounds.high), fixed))

    async def leave(self, workload: str) -> None:
        """Controls it no more, and takes c and the controller's memory out of Redis."""
        if workload in self._followed:
            self._followed.discard(workload)
            await self._loop.remove(workload)

    def state(self, workload: str) -> LoopStatus | None:
        """How it stands; None where it is not controlled."""
        return self._loop.status(workload) if workload in self._followed else None
