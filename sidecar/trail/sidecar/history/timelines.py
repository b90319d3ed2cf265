"""The timelines of one engine's requests: those that are open, and the last that ended."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trail.policy.spec import PolicySpec
from trail.sidecar.logs import get_logger
from trail.sidecar.requests.timeline import Ending, Moment, RequestTimeline, State
from trail.sidecar.requests.tracker import UNSEEN, RequestTracker, Source
from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import Changed, Clocks, EngineSummary, Finished, Started

ENDED_KEPT = 1000
"""Timelines that are kept after their end, of each engine."""

_SOURCES = {Source.PROMPT: Cause.PROMPT, Source.PROBE: Cause.PROBE, Source.ENGINE: Cause.ENGINE}

log = get_logger()


class TimelineListener(Protocol):
    """Told of every moment, in the loop's thread: it must not wait and should take microseconds."""

    def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
        """`moment` has just been added to `timeline`; at its end, `timeline.ended`."""
        ...


class Timelines:
    """Opens and closes the requests of `tracker` with their timelines. Written by the loop's thread; other
    threads may read.

    Totals count since the sidecar's start: `ended_total`, `policy_preemptions`, `memory_preemptions`, and
    `denied` by cause. `reported`: the engine states what changes; an older one does not, and its requests run
    from their first hidden state on.
    """

    def __init__(self, engine: int, tracker: RequestTracker, clock: Callable[[], int]) -> None:
        self.engine = engine
        self.reported = False
        self.ended: deque[RequestTimeline] = deque(maxlen=ENDED_KEPT)
        self.ended_total = 0
        self.policy_preemptions = 0
        self.memory_preemptions = 0
        self.denied: dict[Cause, int] = {}
        self.listener_failures = 0
        self.listeners: list[TimelineListener] = []
        self._tracker = tracker
        self._clock = clock
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._open: dict[int, RequestTimeline] = {}
        self._by_slot: dict[int, RequestTimeline] = {}
        # As published last, so that a change shows: where the initial prediction comes from.
        self._source = np.zeros(tracker.capacity, dtype=np.uint8)
        self._protected = np.zeros(tracker.capacity, dtype=np.bool_)
        self._running = np.zeros(tracker.capacity, dtype=np.bool_)

    @property
    def open(self) -> list[RequestTimeline]:
        """Open timelines, oldest first."""
        return list(self._open.values())

    def find(self, request_id: str) -> list[RequestTimeline]:
        """The timeline of exactly this id, or else all whose ids begin with it; of equal ids the newest."""
        timelines = {timeline.request_id: timeline for timeline in (*self.ended.copy(), *self.open)}
        if request_id in timelines:
            return [timelines[request_id]]
        return [timeline for name, timeline in timelines.items() if name.startswith(request_id)]

    def clocks(self, event: Clocks) -> None:
        """The engine states its clocks, as it does with every message."""
        self.reported = True
        self._wall_offset_ns = event.wall_ns - event.monotonic_ns

    def start(self, event: Started, limit_tokens: int = 0) -> bool:
        """Opens a request, as `RequestTracker.start` does; False when it was open already."""
        if not self._tracker.start(event, limit_tokens):
            return False
        for before in (self._by_slot.get(event.slot), self._open.get(event.key)):
            if before is not None:  # its end was lost, or its slot is another now
                self._drop(before)
        summary = event.summary or EngineSummary()
        timeline = RequestTimeline(
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
        self._open[event.key] = self._by_slot[event.slot] = timeline
        self._source[event.slot] = Source.NONE
        self._protected[event.slot] = self._running[event.slot] = False
        if timeline.found:
            timeline.state = State.RUNNING if summary.running else State.WAITING
            self._add(timeline, Moment(self._clock(), Change.FOUND, event.age))
        else:
            timeline.waiting_since_ns = summary.queued_ns
            self._add(timeline, Moment(summary.queued_ns or self._clock(), Change.ARRIVED, 0))
        return True

    def change(self, event: Changed) -> None:
        """The engine states a change."""
        timeline = self._open.get(event.key)
        if timeline is None:
            return
        other = self._open.get(event.other)
        moment = Moment(
            event.time_ns,
            event.change,
            event.age,
            event.cause,
            other.request_id if other is not None else "",
            math.nan if event.rank is None else event.rank,
            self._remaining(timeline.slot, event.age),
            timeline.cutoff,
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
        self._add(timeline, moment)

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

    def end(self, event: Finished, spec: PolicySpec, generation: int, *, by_prompt: bool = False) -> None:
        """Closes a request; nothing happens where it is not open. What was in force at its end: `spec` of
        `generation`, and `by_prompt` as in `Ending`."""
        timeline = self._open.get(event.key)
        if timeline is None:
            return
        self._drop(timeline)
        self._predicted(timeline)
        timeline.ending = self._ending(timeline.slot, event, spec, generation, by_prompt=by_prompt)
        self._tracker.finish(event.key, event.output_tokens)
        if event.summary is not None:
            timeline.summary = event.summary
        self.ended_total += 1
        self.ended.append(timeline)
        ended_ns = timeline.summary.ended_ns or self._clock()
        self._add(timeline, Moment(ended_ns, Change.ENDED, event.output_tokens))

    def clear(self) -> None:
        """Forgets the open requests: the engine sends them again."""
        self._tracker.clear()
        self._open.clear()
        self._by_slot.clear()

    def running(self) -> Iterator[RequestTimeline]:
        """Open timelines that run."""
        return (timeline for timeline in self.open if timeline.state == State.RUNNING)

    def waiting(self) -> Iterator[RequestTimeline]:
        """Open timelines that wait."""
        return (timeline for timeline in self.open if timeline.state == State.WAITING)

    def _drop(self, timeline: RequestTimeline) -> None:
        del self._open[timeline.key], self._by_slot[timeline.slot]

    def _predicted(self, timeline: RequestTimeline) -> None:
        """Notes what the tracker holds of a request that ends."""
        tracker, slot = self._tracker, timeline.slot
        source = int(tracker.source[slot])
        if source != Source.NONE:
            timeline.initial, timeline.initial_source = float(tracker.initial[slot]), _SOURCES[source]
        if tracker.predictions[slot]:
            timeline.refined = float(tracker.remaining[slot] + tracker.age[slot])

    def _ending(
        self, slot: int, event: Finished, spec: PolicySpec, generation: int, *, by_prompt: bool
    ) -> Ending:
        tracker = self._tracker
        predictions = int(tracker.predictions[slot])
        history = tracker.history.of(slot, predictions)
        errors = np.abs(history.lengths.astype(np.float64) - event.output_tokens)
        return Ending(
            output_tokens=event.output_tokens,
            preemptions=event.preemptions,
            recomputed_tokens=event.recomputed_tokens,
            finish_reason=event.finish_reason,
            limit=int(tracker.limit[slot]),
            prompt_said=float(tracker.prompt_said[slot]),
            predictions=predictions,
            refined_mae=float(errors.mean()) if predictions else math.nan,
            history=history,
            by_prompt=by_prompt,
            policy=spec,
            generation=generation,
        )

    def _note(self, slot: int, cutoff: int, *, past: bool, runs: bool) -> None:
        timeline = self._by_slot.get(slot)
        if timeline is None:
            return
        tracker = self._tracker
        source, age, now_ns = int(tracker.source[slot]), int(tracker.age[slot]), self._clock()
        if not self.reported and runs:
            self._running[slot] = True
            timeline.state = State.RUNNING
        timeline.cutoff = cutoff
        if source != self._source[slot]:
            self._source[slot] = source
            timeline.initial, timeline.initial_source = float(tracker.initial[slot]), _SOURCES[source]
            self._add(
                timeline,
                Moment(now_ns, Change.PREDICTED, age, timeline.initial_source,
                       remaining=float(tracker.remaining[slot]), cutoff=cutoff),
            )  # fmt: skip
        if past and not self._protected[slot]:
            self._protected[slot] = True
            self._add(
                timeline,
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

    def _add(self, timeline: RequestTimeline, moment: Moment) -> None:
        timeline.add(moment)
        for listener in self.listeners:
            try:
                listener.moment(timeline, moment)
            except Exception:
                if not self.listener_failures:
                    log.exception("an observer failed; requests are served regardless (said once)")
                self.listener_failures += 1
