"""What the engine core tells the sidecar: small tuples on the step's path, protobuf off it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trail.wire.changes import Cause, Change
from trail.wire.v1 import trail_pb2

UINT32_MAX = 2**32 - 1


class PassageFacts(NamedTuple):
    """What a request has been through; in the order of `trail.v1.Passage`."""

    queued_ns: int
    admitted_ns: int
    first_token_ns: int
    ended_ns: int
    waited_ns: int
    policy_preemptions: int
    memory_preemptions: int
    granted: int
    denied: Sequence[int]
    fallback_steps: int
    running: bool


class Started(NamedTuple):
    """A request that is open, at its arrival or sent again. Lengths and ages in tokens."""

    key: int
    request_id: str
    slot: int
    prompt_token_ids: Sequence[int]
    max_tokens: int
    arrival_time_s: float
    priority: int
    trace_headers: Mapping[str, str] | None
    exact_output_tokens: int
    age: int
    initial_prediction: float
    passage: PassageFacts | None = None


class Changed(NamedTuple):
    """A request's state changed at `time_ns` (CLOCK_MONOTONIC); `other` is a key, 0 for none."""

    key: int
    slot: int
    change: Change
    time_ns: int
    age: int
    cause: Cause = Cause.NONE
    other: int = 0
    rank: float | None = None


class Finished(NamedTuple):
    """A request that ended."""

    key: int
    slot: int
    output_tokens: int
    preemptions: int
    recomputed_tokens: int
    finish_reason: str
    passage: PassageFacts | None = None


Event = Started | Changed | Finished


class Load(NamedTuple):
    """The engine's queues and totals; in the order of `trail.v1.Load`."""

    waiting: int
    running: int
    kv_usage: float
    preemptions_total: int
    policy_preemptions_total: int
    recomputed_tokens_total: int
    fallback_steps_total: int
    steps_total: int
    preemptions_denied_total: int


@dataclass(frozen=True)
class EngineFacts:
    """What `Hello` says about this engine core."""

    engine: int
    vllm_version: str
    model: str
    hidden_size: int
    layers: tuple[int, ...]
    dtype: str
    block_size_tokens: int
    kv_blocks: int
    max_running: int
    max_model_len: int
    prefix_caching: bool

    def message(self) -> trail_pb2.EngineEvents:
        """The first message of a stream."""
        return trail_pb2.EngineEvents(
            hello=trail_pb2.Hello(
                engine=self.engine,
                vllm_version=self.vllm_version,
                model=self.model,
                hidden_size=self.hidden_size,
                layers=self.layers,
                dtype=self.dtype,
                block_size_tokens=self.block_size_tokens,
                kv_blocks=self.kv_blocks,
                max_running=self.max_running,
                max_model_len=self.max_model_len,
                prefix_caching=self.prefix_caching,
            )
        )


def message(events: Sequence[Event], load: Load | None) -> trail_pb2.EngineEvents:
    """One message with all of `events`, in their order within each kind, and the load if given."""
    return trail_pb2.EngineEvents(
        started=[_started(event) for event in events if isinstance(event, Started)],
        finished=[_finished(event) for event in events if isinstance(event, Finished)],
        load=None if load is None else trail_pb2.Load(**load._asdict()),
        changed=[_changed(event) for event in events if isinstance(event, Changed)],
        monotonic_ns=time.monotonic_ns(),
        wall_ns=time.time_ns(),
    )


def _started(event: Started) -> trail_pb2.RequestStarted:
    return trail_pb2.RequestStarted(
        key=event.key,
        request_id=event.request_id,
        slot=event.slot,
        prompt_token_ids=event.prompt_token_ids,
        max_tokens=min(event.max_tokens, UINT32_MAX),
        arrival_time_s=event.arrival_time_s,
        priority=event.priority,
        trace_headers=event.trace_headers,
        exact_output_tokens=event.exact_output_tokens,
        age=event.age,
        initial_prediction=event.initial_prediction,
        passage=_passage(event.passage),
    )


def _changed(event: Changed) -> trail_pb2.RequestChanged:
    return trail_pb2.RequestChanged(
        key=event.key,
        change=event.change.value,
        time_ns=event.time_ns,
        age=event.age,
        cause=event.cause.value,
        other=event.other,
        rank=event.rank,
    )


def _finished(event: Finished) -> trail_pb2.RequestFinished:
    return trail_pb2.RequestFinished(
        key=event.key,
        slot=event.slot,
        output_tokens=event.output_tokens,
        preemptions=event.preemptions,
        recomputed_tokens=event.recomputed_tokens,
        finish_reason=event.finish_reason,
        passage=_passage(event.passage),
    )


def _passage(facts: PassageFacts | None) -> trail_pb2.Passage | None:
    return None if facts is None else trail_pb2.Passage(**facts._asdict())
