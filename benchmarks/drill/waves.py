"""Waves of identical requests, and what a fault in one of them changed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trail.bench.client import COMPLETED, ClientRun, Outcome, run_requests
from trail.bench.workload import BenchRequest
from trail.serving.control import ControlError, EngineState
from trail.serving.stack import ServerError, Stack

FAULT_AFTER_S = 2.0
"""Into the wave: every slot is taken and hundreds wait."""
HANG_S = 3.0
_POLL_S = 0.05
_SETTLE_S = 1.0
_BACK_LIMIT_S = 60.0
_REQUEST_LIMIT_S = 300.0


@dataclass
class Wave:
    """One wave. `steps` and `fallback_steps` are the engine's over the wave; a steady one has no fault."""

    kind: str
    run: ClientRun
    steps: int
    fallback_steps: int
    fault: dict[str, Any] = field(default_factory=dict)


class Drill:
    """A server under TRAIL and the requests of every wave."""

    def __init__(
        self, stack: Stack, requests: Sequence[BenchRequest], *, model: str, temperature: float
    ) -> None:
        self._stack, self._requests = stack, requests
        self._model, self._temperature = model, temperature
        self._waves = 0
        self._steps = 0
        """The engine's total when it was last idle; a sidecar that has just come back knows less at first."""

    async def steady(self) -> Wave:
        """All requests at once, and nothing happens."""
        return await self._wave("steady", _nothing)

    async def kill(self) -> Wave:
        """`kill -9` while hundreds wait; how long until a restarted sidecar knows open requests again."""
        return await self._wave("kill", self._kill)

    async def hang(self) -> Wave:
        """SIGSTOP, and SIGCONT after `HANG_S`."""
        return await self._wave("hang", self._hang)

    async def _wave(self, kind: str, fault: Callable[[], Awaitable[dict[str, Any]]]) -> Wave:
        before = await self._idle()
        self._waves += 1
        sending = asyncio.create_task(
            run_requests(
                self._stack.base_url,
                self._requests,
                model=self._model,
                temperature=self._temperature,
                run_id=f"w{self._waves}",
                timeout_s=_REQUEST_LIMIT_S,
            )
        )
        await asyncio.sleep(FAULT_AFTER_S)
        seen = await fault()
        run = await sending
        after = await self._idle()
        return Wave(kind, run, after.steps - before.steps, after.fallback_steps - before.fallback_steps, seen)

    async def _kill(self) -> dict[str, Any]:
        self._signal(signal.SIGKILL)
        began_s = time.monotonic()
        while time.monotonic() - began_s < _BACK_LIMIT_S:
            await asyncio.sleep(_POLL_S)
            state = await asyncio.to_thread(self._state)
            if state is not None and state.open_requests:
                return {"back_after_s": time.monotonic() - began_s, "open_requests": state.open_requests}
        return {"back_after_s": None, "open_requests": 0}

    async def _hang(self) -> dict[str, Any]:
        self._signal(signal.SIGSTOP)
        await asyncio.sleep(HANG_S)
        self._signal(signal.SIGCONT)
        return {"hung_s": HANG_S}

    async def _idle(self) -> EngineState:
        """The engine's totals once nothing is open and they have settled. Raises ControlError."""
        deadline_s = time.monotonic() + _BACK_LIMIT_S
        before: EngineState | None = None
        while time.monotonic() < deadline_s:
            state = await asyncio.to_thread(self._state)
            if (
                state is not None
                and not state.open_requests
                and state.steps >= self._steps
                and state == before
            ):
                self._steps = state.steps
                return state
            before = state
            await asyncio.sleep(_SETTLE_S)
        raise ControlError(f"the engine does not become idle: {before}")

    def _state(self) -> EngineState | None:
        try:
            return self._stack.control.state()
        except ControlError:
            return None

    def _signal(self, number: signal.Signals) -> None:
        if self._stack.sidecar is None:
            raise ServerError("there is no sidecar to send a signal to")
        os.kill(self._stack.sidecar.pid, number)


async def _nothing() -> dict[str, Any]:
    return {}


def longest_silence_s(outcomes: Sequence[Outcome]) -> float:
    """The longest time, seconds, in which no request of the wave got a token although some were open."""
    times = np.sort(np.concatenate([np.asarray(o.token_times_s) for o in outcomes] or [np.zeros(0)]))
    return float(np.diff(times).max()) if len(times) > 1 else 0.0


def told(wave: Wave, reference: Wave) -> dict[str, Any]:
    """One wave as it stands in the results, its answers compared with those of `reference`."""
    expected = {o.index: o.digest for o in reference.run.outcomes}
    outcomes = wave.run.outcomes
    done = [o for o in outcomes if o.outcome == COMPLETED]
    return {
        "kind": wave.kind,
        "requests": len(outcomes),
        "completed": len(done),
        "identical": sum(expected[o.index] == o.digest for o in done),
        "seconds": wave.run.duration_s,
        "tokens_per_s": sum(o.output_tokens for o in done) / wave.run.duration_s,
        "longest_silence_s": longest_silence_s(outcomes),
        "steps": wave.steps,
        "fallback_steps": wave.fallback_steps,
        **wave.fault,
    }
