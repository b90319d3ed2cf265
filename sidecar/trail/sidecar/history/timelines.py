"""The lives of one engine's requests: those that are open, and the last that ended."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trail.policy.spec import PolicySpec
from trail.sidecar.logs import get_logger
from trail.sidecar.requests.timeline import Ending, Life, Moment, State
from trail.sidecar.requests.tracker import UNSEEN, Outcome, RequestTracker, Source
from trail.wire.lifecycle import Cause, Change, Changed, Clocks, EngineSummary, Finished, Started

ENDED_KEPT = 1000
"""Lives that are kept after their end, of each engine."""

_SOURCES = {Source.PROMPT: Cause.PROMPT, Source.PROBE: Cause.PROBE, Source.ENGINE: Cause.ENGINE}

log = get_logger()


class LifeListener(Protocol):
    """Told of every moment, in the loop's thread: it must not wait and should take microseconds."""

    def moment(self, life: Life, moment: Moment) -> None:
        """`moment` has just been added to `life`; at its end, `life.ended`."""
        ...


class Lives:
    """Written by the loop's thread; other threads may read.

    Totals count since the sidecar's start: `ended_total`, `policy_preemptions`, `memory_preemptions`, and
    `denied` by cause. `reported`: the engine states what changes; an older one does not, and its requests run
    from their first hidden state on.
    """

    def __init__(self, engine: int, tracker: RequestTracker, clock: Callable[[], int]) -> None:
        self.engine = engine
        self.reported = False
        self.ended: deque[Life] = deque(maxlen=ENDED_KEPT)
        self.ended_total = 0
        self.policy_preemptions = 0
        self.memory_preemptions = 0
        self.denied: dict[Cause, int] = {}
        self.listener_failures = 0
        self.listeners: list[LifeListener] = []
        self._tracker = tracker
        self._clock = clock
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._open: dict[int, Life] = {}
        self._by_slot: dict[int, Life] = {}
        # As published last, so that a change shows: where the initial prediction comes from.
        self._source = np.zeros(tracker.capacity, dtype=np.uint8)
        self._protected = np.zeros(tracker.capacity, dtype=np.bool_)
        self._running = np.zeros(tracker.capacity, dtype=np.bool_)

    @property
    def open(self) -> list[Life]:
        """Open lives, oldest first."""
        return list(self._open.values())

    def find(self, request_id: str) -> list[Life]:
        """The life of exactly this id, or else all whose ids begin with it; of equal ids the newest."""
        lives = {life.request_id: life for life in (*self.ended.copy(), *self.open)}
        if request_id in lives:
            return [lives[request_id]]
        return [life for name, life in lives.items() if name.startswith(request_id)]

    def clocks(self, event: Clocks) -> None:
        """The engine states its clocks, as it does with every message."""
        self.reported = True
        self._wall_offset_ns = event.wall_ns - event.monotonic_ns

    def start(self, event: Started) -> None:
        """A request was opened in the tracker."""
        if (before := self._by_slot.pop(event.slot, None)) is not None:
            self._open.pop(before.key, None)  # its end was lost
        summary = event.summary or EngineSummary()
        life = Life(
            engine=self.engine,
            key=event.key,
            slot=event.slot,
            request_id=event.request_id,
            prompt_tokens=len(event.prompt_token_ids),
            max_tokens=event.max_tokens,
            priority=event.priority,
            arrival_s=event.arrival_time_s,
            wall_offset_ns=self._wall_offset_ns,
            trace_headers=event.trace_headers,
            found=event.age > 0 or summary.admitted_ns > 0,
            age=event.age,
            summary=summary,
        )
        self._open[event.key] = self._by_slot[event.slot] = life
        self._source[event.slot] = Source.NONE
        self._protected[event.slot] = self._running[event.slot] = False
        if life.found:
            life.state = State.RUNNING if summary.running else State.WAITING
            self._add(life, Moment(self._clock(), Change.FOUND, event.age))
        else:
            life.waiting_since_ns = summary.queued_ns
            self._add(life, Moment(summary.queued_ns or self._clock(), Change.ARRIVED, 0))

    def change(self, event: Changed) -> None:
        """The engine states a change."""
        life = self._open.get(event.key)
        if life is None:
            return
        other = self._open.get(event.other)
        moment = Moment(
            event.time_ns,
            event.change,
            event.age,
            event.cause,
            other.request_id if other is not None else "",
            math.nan if event.rank is None else event.rank,
            self._remaining(life.slot, event.age),
            life.cutoff,
        )
        if event.change == Change.PREEMPTED:
            if event.cause == Cause.KV_FULL:
                self.memory_preemptions += 1
            else:
                self.policy_preemptions += 1
            if other is not None:
                other.summary = other.summary._replace(granted=other.summary.granted + 1)
        elif event.change == Change.DENIED:
            self.denied[event.cause] = self.denied.get(event.cause, 0) + 1
        self._add(life, moment)

    def published(self, slots: npt.NDArray[np.int64], rows: npt.NDArray[np.void], spec: PolicySpec) -> None:
        """`rows` [n] of BOARD_ROW of `slots` [n] are on the board: note what is new about them."""
        tracker = self._tracker
        used, seen = tracker.key[slots] != 0, tracker.seen[slots] != UNSEEN
        new = tracker.source[slots] != self._source[slots]
        past = np.zeros(len(slots), dtype=np.bool_)
        if spec.preempts:
            past = seen & (rows["key"] != 0) & (rows["age"] >= rows["cutoff"])
            new |= past & ~self._protected[slots]
        if not self.reported:
            new |= seen & ~self._running[slots]
        for i in np.flatnonzero(used & new).tolist():
            self._note(int(slots[i]), int(rows["cutoff"][i]), past=bool(past[i]), runs=bool(seen[i]))

    def ending(self, event: Finished) -> None:
        """A request is about to be closed in the tracker: keep what it holds of its predictions."""
        life = self._open.get(event.key)
        if life is not None and self._tracker.predictions[life.slot]:
            life.refined = float(self._tracker.remaining[life.slot] + self._tracker.age[life.slot])

    def end(self, event: Finished, outcome: Outcome, spec: PolicySpec, generation: int) -> None:
        """A request ended; `outcome` is the tracker's account of it."""
        life = self._open.pop(event.key, None)
        if life is None:
            return
        self._by_slot.pop(life.slot, None)
        if event.summary is not None:
            life.summary = event.summary
        ended_ns = life.summary.ended_ns or self._clock()
        life.ending = Ending(
            output_tokens=outcome.output_tokens,
            recomputed_tokens=outcome.recomputed_tokens,
            finish_reason=outcome.finish_reason,
            predictions=outcome.predictions,
            refined_mae=outcome.refined_mae,
            policy=spec.text,
            c=spec.c,
            generation=generation,
        )
        self.ended_total += 1
        self.ended.append(life)
        self._add(life, Moment(ended_ns, Change.ENDED, outcome.output_tokens))

    def clear(self) -> None:
        """Forget the open lives: the engine sends them again."""
        self._open.clear()
        self._by_slot.clear()

    def running(self) -> Iterator[Life]:
        """Open lives that run."""
        return (life for life in self.open if life.state == State.RUNNING)

    def waiting(self) -> Iterator[Life]:
        """Open lives that wait."""
        return (life for life in self.open if life.state == State.WAITING)

    def _note(self, slot: int, cutoff: int, *, past: bool, runs: bool) -> None:
        life = self._by_slot.get(slot)
        if life is None:
            return
        tracker = self._tracker
        source, age, now_ns = int(tracker.source[slot]), int(tracker.age[slot]), self._clock()
        if not self.reported and runs:
            self._running[slot] = True
            life.state = State.RUNNING
        life.cutoff = cutoff
        if source != self._source[slot]:
            self._source[slot] = source
            life.initial, life.initial_source = float(tracker.initial[slot]), _SOURCES[Source(source)]
            self._add(
                life,
                Moment(now_ns, Change.PREDICTED, age, life.initial_source,
                       remaining=float(tracker.remaining[slot]), cutoff=cutoff),
            )  # fmt: skip
        if past and not self._protected[slot]:
            self._protected[slot] = True
            self._add(
                life,
                Moment(
                    now_ns, Change.PROTECTED, age, remaining=float(tracker.remaining[slot]), cutoff=cutoff
                ),
            )

    def _remaining(self, slot: int, age: int) -> float:
        """What is predicted of the request in `slot` at `age`, in tokens; NaN where nothing is."""
        tracker = self._tracker
        if tracker.source[slot] == Source.NONE:
            return math.nan
        return max(float(tracker.remaining[slot]) - max(age - int(tracker.age[slot]), 0), 0.0)

    def _add(self, life: Life, moment: Moment) -> None:
        life.add(moment)
        for listener in self.listeners:
            try:
                listener.moment(life, moment)
            except Exception:
                if not self.listener_failures:
                    log.exception("an observer failed; requests are served regardless (said once)")
                self.listener_failures += 1
