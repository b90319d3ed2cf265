"""The loop on c: pressure of the pods in, the controller's decision out, one controller a workload.

What decides is pure: `aggregate`, and the policy's `controller.decide`. What acts is `ControlLoop.turn`: one
look at every workload. Redis away is a status, no error: sidecars keep the last c, and the next turn that
finds Redis again goes on from there. No clock of a pod or of the operator's host is compared with another.
"""

import asyncio
import contextlib
import logging
import math
import statistics
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace

from trail.policy.controller import ControllerState, Objective, Pressure, decide, initial_state
from trail.wire.redis_schema import ControlRecord, PodReport, Rejected
from trail_operator.control.store import Failure, Store, WorkloadState

INTERVAL_S = 2.0
SAVE_EVERY = 15
"""Decisions without a change after which the controller's memory is saved anyway."""
CONCURRENCY = 16
_TRIM = 0.1
_CLOCK_BACK_MS = 3_600_000
"""So far a new Redis's clock may be behind the old one's; later generations are rubbish."""

log = logging.getLogger("trail.operator.loop")

_TYPICAL = (
    "interval_s",
    "usage",
    "recompute_cost",
    "prompt_tokens",
    "answer_tokens",
    "prefix_cache",
    "short_wait_s",
    "gap_s",
)
_AVERAGE = ("waiting", "running", "free_blocks", "generated_s", "recomputed_s", "preemptions_s")


@dataclass(frozen=True)
class Target:
    """How c of a workload is to be set: by the controller for `objective`, or to `fixed`."""

    objective: Objective = field(default_factory=Objective)
    fixed: float | None = None


@dataclass(frozen=True)
class Change:
    """c of a workload has been written. `reason` is a sentence for an Event and a span."""

    workload: str
    c: float
    before: float | None
    generation: int
    reason: str
    pressure: Pressure | None


@dataclass(frozen=True)
class LoopStatus:
    """How the loop of a workload stands; `degraded` says in a sentence what is wrong, if anything is."""

    degraded: str = ""
    c: float | None = None
    generation: int = 0
    reason: str = ""
    pods: int = 0
    following: int = 0
    """Pods that say they apply the generation in force."""
    falling_back: int = 0
    pressure: Pressure | None = None
    rejected: dict[str, Rejected] = field(default_factory=dict)


def aggregate(reports: Iterable[PodReport]) -> Pressure | None:
    """A typical engine's pressure, None without reports.

    Ratios and times are medians over pods, rates and counts means without the lowest and highest tenth (at
    least one each from three pods on): one pod that reports rubbish, in range but untrue, moves neither far.
    """
    reports = list(reports)
    if not reports:
        return None
    values = {name: [float(getattr(report, name)) for report in reports] for name in (*_TYPICAL, *_AVERAGE)}
    return Pressure(
        **{name: _median(values[name]) for name in _TYPICAL},
        **{name: _trimmed_mean(values[name]) for name in _AVERAGE},
    )


def _median(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return statistics.median(known) if known else math.nan


def _trimmed_mean(values: list[float]) -> float:
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return math.nan
    cut = math.ceil(_TRIM * len(known)) if len(known) >= 3 else 0
    kept = known[cut : len(known) - cut]
    return sum(kept) / len(kept)


@dataclass
class _Workload:
    target: Target
    state: ControllerState | None = None
    generation: int = 0
    heard_ms: dict[str, int] = field(default_factory=dict)
    unsaved: int = 0
    status: LoopStatus = field(default_factory=LoopStatus)


class ControlLoop:
    """Turns of the loop on c for the workloads that are set. Everything runs in one asyncio loop.

    `is_leader` says whether this operator acts; `on_change` hears of every c written.
    """

    def __init__(
        self,
        store: Store,
        *,
        is_leader: Callable[[], bool],
        on_change: Callable[[Change], Awaitable[None]],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._store = store
        self._is_leader = is_leader
        self._on_change = on_change
        self._interval_s = interval_s
        self._workloads: dict[str, _Workload] = {}
        self._gate = asyncio.Semaphore(CONCURRENCY)

    def set_target(self, workload: str, target: Target) -> None:
        """Controls `workload` from the next turn on, or changes how."""
        known = self._workloads.get(workload)
        if known is None:
            self._workloads[workload] = _Workload(target)
        else:
            known.target = target

    async def remove(self, workload: str) -> None:
        """Stops controlling `workload`, and removes c and memory from Redis where this operator acts."""
        if self._workloads.pop(workload, None) is not None and self._is_leader():
            with contextlib.suppress(*Failure):
                await self._store.forget(workload)

    def status(self, workload: str) -> LoopStatus:
        """How the loop of `workload` stands. Raises KeyError for one that was never set."""
        return self._workloads[workload].status

    @property
    def degraded(self) -> str:
        """What is wrong with Redis, empty when nothing is."""
        return next((w.status.degraded for w in self._workloads.values() if w.status.degraded), "")

    async def run(self, stop: asyncio.Event) -> None:
        """A turn every interval until `stop`."""
        while not stop.is_set():
            try:
                await self.turn()
            except Exception:
                log.exception("a turn of the loop on c failed; the next one comes")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval_s)

    async def turn(self) -> None:
        """One look at every workload, where this operator acts."""
        if self._is_leader():
            await asyncio.gather(*(self._guarded(name, item) for name, item in self._workloads.items()))

    async def _guarded(self, name: str, item: _Workload) -> None:
        async with self._gate:
            try:
                await self._turn(name, item)
            except Failure as error:
                problem = f"Redis cannot be used ({type(error).__name__}: {error}); sidecars keep the last c"
                if not item.status.degraded:
                    log.warning("%s: %s", name, problem)
                item.status = replace(item.status, degraded=problem)
            except Exception as error:
                log.exception("%s: the loop on c failed", name)
                item.status = replace(
                    item.status, degraded=f"internal error: {type(error).__name__}: {error}"
                )

    async def _turn(self, name: str, item: _Workload) -> None:
        view = await self._store.read(name)
        if not self._is_leader():
            return
        state = _adopted(item, view)
        pressure = aggregate(view.reports.values())
        wanted, reason, state = _wanted(item, state, view, pressure)
        # Where nobody speaks yet, pods that come may know the last c.
        if wanted is not None or view.control is not None:
            item.state = state
        held = view.control
        if wanted is not None and (held is None or held.c != wanted or held.generation < item.generation):
            change = Change(name, wanted, held.c if held else None, 0, reason, pressure)
            held = await self._write(name, item, change)
        if item.unsaved >= SAVE_EVERY and item.state is not None:
            await self._store.save_state(name, item.state)
            item.unsaved = 0
        reports = view.reports.values()
        item.status = LoopStatus(
            c=held.c if held else None,
            generation=item.generation,
            reason=held.reason if held else "",
            pods=len(reports),
            following=sum(report.generation == item.generation for report in reports),
            falling_back=sum(report.falling_back > 0 for report in reports),
            pressure=pressure,
            rejected=view.rejected,
        )

    async def _write(self, name: str, item: _Workload, change: Change) -> ControlRecord | None:
        """Writes c and says so; None where somebody else had written, whose word then counts."""
        written, generation = await self._store.write_c(name, change.c, change.reason, item.generation)
        if not written:
            item.state = None
            return None
        item.generation = generation
        item.unsaved = SAVE_EVERY
        await self._on_change(replace(change, generation=generation))
        return ControlRecord(change.c, generation, change.reason)


def _adopted(item: _Workload, view: WorkloadState) -> ControllerState:
    """The state to go on from: our own, or what another operator, or this one before its restart, has left.

    Where Redis has lost its data pods still say what they were told last.
    """
    told = [r for r in view.reports.values() if 0 < r.generation <= view.now_ms + _CLOCK_BACK_MS]
    held = view.control
    state = item.state
    if state is None or (held is not None and held.generation > item.generation):
        state = view.state or initial_state(item.target.objective)
        if held is not None:
            state = replace(state, c=held.c)
        elif told:
            state = replace(state, c=statistics.median_low(report.c for report in told))
    last = statistics.median_low(report.generation for report in told) if told else 0
    item.generation = max(item.generation, held.generation if held else 0, last)
    return state


def _wanted(
    item: _Workload, state: ControllerState, view: WorkloadState, pressure: Pressure | None
) -> tuple[float | None, str, ControllerState]:
    """The c to be in force and why, None where there is nothing to say; and the state after that."""
    if item.target.fixed is not None:
        return item.target.fixed, "c is fixed by the policy", replace(state, c=item.target.fixed)
    if pressure is None:
        return None, "", state
    fresh = sum(item.heard_ms.get(pod) != heard for pod, heard in view.heard_ms.items())
    if 2 * fresh < len(view.heard_ms):
        return state.c, "Redis holds another c than was decided", state
    item.heard_ms = view.heard_ms
    item.unsaved += 1
    decision = decide(pressure, state, item.target.objective)
    return decision.c, decision.reason, decision.state
