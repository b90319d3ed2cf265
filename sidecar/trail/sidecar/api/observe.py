"""The read-only service for whoever wants to know what is decided and why."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np

from trail.sidecar.api.messages import backlog_message, moment_message, timeline_message
from trail.sidecar.history.watch import WATCHERS, WatchHub
from trail.sidecar.loop.backlog import backlog_of
from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.pacing import Pacing
from trail.sidecar.requests.timeline import RequestTimeline
from trail.sidecar.requests.tracker import Source
from trail.wire.changes import Change
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

_MOST_REQUESTS = 500


class ObserveService(trail_pb2_grpc.ObserveServicer):  # type: ignore[misc]  # generated code is untyped
    """Reads what the loop keeps; nothing in it waits for the loop or makes it wait."""

    def __init__(
        self,
        pipelines: Mapping[int, EnginePipeline],
        policy: PolicyBox,
        watch: WatchHub,
        describe: Callable[[], Any],
        *,
        pacing: Pacing,
        pod: str = "",
    ) -> None:
        """`describe` gives the sidecar's `Description`."""
        self._pipelines = pipelines
        self._policy = policy
        self._watch = watch
        self._describe = describe
        self._look_s = pacing.caller_look_s
        self._pod = pod

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's name
        """Moments of all requests, from the call on."""
        subscription = self._watch.subscribe(request.ends_only)
        if subscription is None:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{WATCHERS} callers watch already; end one of them, or read the metrics",
            )
            return
        # Callers see that they are heard, also where nothing happens for long.
        context.send_initial_metadata(())
        try:
            while context.is_active():
                seen = subscription.take(self._look_s)
                if seen is None:
                    continue
                timeline, moment = seen.timeline, seen.moment
                decision = trail_pb2.Decision(
                    engine=timeline.engine,
                    request_id=timeline.request_id,
                    moment=moment_message(timeline, moment),
                    missed=seen.missed,
                )
                if moment.change == Change.ENDED:
                    decision.life.CopyFrom(self._message(timeline))
                yield decision
        finally:
            self._watch.unsubscribe(subscription)

    def Explain(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """One request from its arrival on."""
        wanted = request.request_id
        if not wanted:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "request_id is empty; give vLLM's id of a request"
            )
        found = [
            timeline for pipeline in self._pipelines.values() for timeline in pipeline.timelines.find(wanted)
        ]
        exact = [timeline for timeline in found if timeline.request_id == wanted]
        found = exact or found
        if not found:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no request {wanted!r} is open, nor among the last that ended; ids are vLLM's own, which the"
                " API answers with, and a beginning of one is enough",
            )
        if len({timeline.request_id for timeline in found}) > 1:
            some = ", ".join(timeline.request_id for timeline in found[-3:])
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{len(found)} requests begin with {wanted!r}, as {some}; give more of the id",
            )
        return self._message(found[-1])

    def Backlog(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Predicted work, by engine."""
        return trail_pb2.BacklogResponse(
            engines=[backlog_message(backlog_of(pipeline)) for pipeline in self._pipelines.values()]
        )

    def Snapshot(self, request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Everything that `trail top` shows."""
        most = min(request.requests, _MOST_REQUESTS)
        return trail_pb2.SnapshotResponse(
            time_s=time.time(),
            description=self._describe(),
            policy_text=self._policy.current[0].text,
            policy_reason=self._policy.reason,
            pod=self._pod,
            engines=[self._engine(pipeline, most) for pipeline in self._pipelines.values()],
        )

    def _engine(self, pipeline: EnginePipeline, most: int) -> Any:
        timelines = pipeline.timelines
        running = list(timelines.running())
        snapshot = trail_pb2.EngineSnapshot(
            engine=pipeline.engine,
            backlog=backlog_message(backlog_of(pipeline)),
            ended_total=timelines.ended_total,
            policy_preemptions_total=timelines.policy_preemptions,
            memory_preemptions_total=timelines.memory_preemptions,
            denied_total={cause.label: count for cause, count in timelines.denied.copy().items()},
            protected_running=sum(timeline.protected for timeline in running),
        )
        if most:
            remaining = np.where(
                pipeline.tracker.source != Source.NONE,
                pipeline.tracker.remaining,
                pipeline.tracker.mean.value,
            )
            waiting = sorted(timelines.waiting(), key=lambda one: (not one.protected, remaining[one.slot]))
            snapshot.waiting.extend(self._messages(waiting[:most]))
            snapshot.running.extend(self._messages(running[::-1][:most]))
            snapshot.ended.extend(self._messages(list(timelines.ended.copy())[::-1][:most]))
        return snapshot

    def _messages(self, timelines: Iterable[RequestTimeline]) -> list[Any]:
        return [self._message(timeline, moments=False) for timeline in timelines]

    def _message(self, timeline: RequestTimeline, *, moments: bool = True) -> Any:
        age, remaining, slot = 0, math.nan, timeline.slot
        tracker = self._pipelines[timeline.engine].tracker
        if not timeline.ended and int(tracker.key[slot]) == timeline.key:
            age = max(int(tracker.seen[slot]), 0)
            if tracker.source[slot] != Source.NONE:
                remaining = float(tracker.remaining[slot])
        return timeline_message(
            timeline, self._policy.current, time.monotonic_ns(), age=age, remaining=remaining, moments=moments
        )
