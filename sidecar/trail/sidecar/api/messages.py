"""Timelines, backlogs and policies as messages of `trail.v1`."""

import math
from dataclasses import asdict
from typing import Any

from trail.policy.spec import PolicySpec
from trail.sidecar.loop.backlog import Backlog
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.wire.v1 import trail_pb2


def policy_message(spec: PolicySpec, generation: int) -> Any:
    """A policy and its generation."""
    return trail_pb2.Policy(**vars(spec), generation=generation)


def backlog_message(backlog: Backlog) -> Any:
    """One engine's backlog."""
    return trail_pb2.EngineBacklog(**asdict(backlog))


def moment_message(timeline: RequestTimeline, moment: Moment) -> Any:
    """One moment of `timeline`."""
    return trail_pb2.Moment(
        change=int(moment.change),
        time_s=timeline.wall_ns(moment.time_ns) / 1e9,
        age=moment.age,
        cause=int(moment.cause),
        other=moment.other,
        rank=_known(moment.rank),
        remaining=_known(moment.remaining),
        cutoff_age=moment.cutoff if moment.cutoff >= 0 else None,
    )


def timeline_message(
    timeline: RequestTimeline,
    policy: tuple[PolicySpec, int],
    now_ns: int,
    *,
    age: int = 0,
    remaining: float = math.nan,
    moments: bool = True,
) -> Any:
    """A request at `now_ns` (CLOCK_MONOTONIC), under `policy` while it is open.

    `age` is the number of its tokens as far as the sidecar has seen them, `remaining` what is predicted of it
    at present (NaN: nothing). Without `moments` only what they
    come to.
    """
    summary, ending = timeline.summary, timeline.ending
    message = trail_pb2.RequestLife(
        engine=timeline.engine,
        request_id=timeline.request_id,
        state=int(timeline.state),
        arrival_time_s=timeline.starts_ns / 1e9,
        time_s=timeline.wall_ns(summary.ended_ns if ending and summary.ended_ns else now_ns) / 1e9,
        prompt_tokens=timeline.prompt_tokens,
        max_tokens=timeline.max_tokens,
        priority=timeline.priority,
        trace_id=timeline.trace_id,
        initial_prediction=_known(timeline.initial),
        initial_source=int(timeline.initial_source),
        predicted_remaining=_known(remaining),
        cutoff_age=timeline.cutoff if timeline.cutoff >= 0 else None,
        protected=timeline.protected,
        age=max(timeline.age, age),
        queued_s=_known(timeline.queued_s),
        admission_s=_known(timeline.admission_s),
        first_token_s=_known(timeline.first_token_s),
        total_s=_known(timeline.total_s),
        policy_preemptions=summary.policy_preemptions,
        memory_preemptions=summary.memory_preemptions,
        granted=summary.granted,
        denied=sorted(int(cause) for cause in summary.denied),
        fallback_steps=summary.fallback_steps,
        admission_rank=_known(timeline.admission_rank),
    )
    if ending is not None:
        spec, generation = ending.policy, ending.generation
        message.finish_reason = ending.finish_reason
        message.recomputed_tokens = ending.recomputed_tokens
        if math.isfinite(ending.refined_mae):
            message.refined_mae = ending.refined_mae
    else:
        spec, generation = policy
    message.policy.CopyFrom(policy_message(spec, generation))
    message.policy_text = spec.text
    if moments:
        # The engine's word may come after what the sidecar noted later.
        ordered = sorted(timeline.moments.copy(), key=lambda moment: moment.time_ns)
        message.moments.extend(moment_message(timeline, moment) for moment in ordered)
        message.moments_left_out = timeline.left_out
    return message


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
