"""Predicted work of one engine: what autoscalers and routers go by."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.requests.timeline import RequestTimeline
from trail.sidecar.requests.tracker import RequestTracker, Source


@dataclass(frozen=True)
class Backlog:
    """Requests, and tokens that they are predicted to generate yet, of one engine.

    `tokens_per_s` is what the engine generates of late, 0 while nothing runs or before it is known; `wait_s`
    how long the queue is, held at its peak (`policy.guard`). A request without a prediction counts as the
    mean of initial predictions.
    """

    engine: int
    model: str
    waiting_requests: int
    running_requests: int
    waiting_tokens: float
    running_tokens: float
    tokens_per_s: float
    wait_s: float
    kv_usage: float
    ordering: bool


def backlog_of(pipeline: EnginePipeline) -> Backlog:
    """The backlog at present. May be called from any thread."""
    tracker, load, estimate = pipeline.tracker, pipeline.load, pipeline.queue_estimate
    waiting, running = list(pipeline.timelines.waiting()), list(pipeline.timelines.running())
    return Backlog(
        engine=pipeline.engine,
        model=pipeline.hello.model if pipeline.hello is not None else "",
        waiting_requests=len(waiting),
        running_requests=len(running),
        waiting_tokens=_tokens(tracker, waiting),
        running_tokens=_tokens(tracker, running),
        tokens_per_s=len(running) / estimate.token_s if estimate.token_s > 0 else 0.0,
        wait_s=estimate.wait_s,
        kv_usage=load.kv_usage,
        ordering=pipeline.ordering,
    )


def _tokens(tracker: RequestTracker, timelines: Iterable[RequestTimeline]) -> float:
    slots = np.array([timeline.slot for timeline in timelines], dtype=np.int64)
    if not len(slots):
        return 0.0
    # A request that the engine has carried on since its last prediction has that much less to go.
    age = np.array([timeline.age for timeline in timelines], dtype=np.float64)
    passed = np.maximum(age - tracker.age[slots], 0.0)
    left = np.maximum(tracker.remaining[slots] - passed, 0.0)
    return float(np.where(tracker.source[slots] != Source.NONE, left, tracker.mean.value).sum())
