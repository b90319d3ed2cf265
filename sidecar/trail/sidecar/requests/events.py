"""What engines report, as plain values: the lifecycle stream of `trail.v1` without protobuf's classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trail.sidecar.requests.timeline import Passage
from trail.wire.changes import Cause, Change


@dataclass(frozen=True)
class Hello:
    """An engine core introduces itself; what it had reported before is void. Zero: not stated."""

    engine: int
    vllm_version: str = ""
    model: str = ""
    hidden_size: int = 0
    layers: tuple[int, ...] = ()
    dtype: str = ""
    block_size_tokens: int = 0
    kv_blocks: int = 0
    max_running: int = 0
    max_model_len: int = 0
    prefix_caching: bool | None = None
    """None: not stated."""


@dataclass(frozen=True)
class Started:
    """A request arrived, or is reported again after a reconnect (`age`, `initial` in tokens)."""

    key: int
    request_id: str
    slot: int
    prompt_token_ids: tuple[int, ...] = field(repr=False)  # prompts are never printed
    max_tokens: int = 0
    exact_output_tokens: int = 0
    age: int = 0
    initial: float = 0.0
    arrival_time_s: float = 0.0  # wall clock
    priority: int = 0
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    passage: Passage | None = None  # older engines state none


class Changed(NamedTuple):
    """An open request changed its state at `time_ns` (CLOCK_MONOTONIC); `other` is a key, 0 for none."""

    key: int
    change: Change
    time_ns: int
    age: int = 0
    cause: Cause = Cause.NONE
    other: int = 0
    rank: float | None = None


@dataclass(frozen=True)
class Finished:
    """A request ended after `output_tokens`."""

    key: int
    slot: int
    output_tokens: int
    preemptions: int = 0
    recomputed_tokens: int = 0
    finish_reason: str = "stop"
    passage: Passage | None = None


class Clocks(NamedTuple):
    """The engine's clocks, read together: CLOCK_MONOTONIC and wall, in nanoseconds."""

    monotonic_ns: int
    wall_ns: int


@dataclass(frozen=True)
class Load:
    """An engine core's queues and running totals."""

    waiting: int = 0
    running: int = 0
    kv_usage: float = 0.0
    preemptions_total: int = 0
    policy_preemptions_total: int = 0
    recomputed_tokens_total: int = 0
    fallback_steps_total: int = 0
    steps_total: int = 0
    preemptions_denied_total: int = 0


@dataclass(frozen=True)
class StreamEnded:
    """The engine's stream closed; its requests stay until it returns or a timeout drops them."""


_CHANGES = {int(change): change for change in Change}
_CAUSES = {int(cause): cause for cause in Cause}

Event = Hello | Clocks | Started | Changed | Finished | Load | StreamEnded


def from_message(message: Any) -> Iterator[Event]:
    """The events of one `EngineEvents`, in the order they are to be applied."""
    if message.HasField("hello"):
        yield hello_from(message.hello)
    if message.wall_ns:
        yield Clocks(message.monotonic_ns, message.wall_ns)
    yield from _interleaved(
        [_started_from(item) for item in message.started],
        _changes_from(message.changed),
        [_finished_from(item) for item in message.finished],
    )
    if message.HasField("load"):
        yield load_from(message.load)


def hello_from(message: Any) -> Hello:
    """A `Hello` message as a value."""
    return Hello(
        engine=message.engine,
        vllm_version=message.vllm_version,
        model=message.model,
        hidden_size=message.hidden_size,
        layers=tuple(message.layers),
        dtype=message.dtype,
        block_size_tokens=message.block_size_tokens,
        kv_blocks=message.kv_blocks,
        max_running=message.max_running,
        max_model_len=message.max_model_len,
        prefix_caching=message.prefix_caching if message.HasField("prefix_caching") else None,
    )


def load_from(message: Any) -> Load:
    """A `Load` message as a value."""
    return Load(**{name: getattr(message, name) for name in Load.__dataclass_fields__})


def _interleaved(
    started: list[Started], changed: dict[int, list[Changed]], finished: list[Finished]
) -> Iterator[Event]:
    """One message says what started, changed and finished, not in which order; slots and keys imply it.

    A slot is free again before the next request takes it; a request starts, changes and finishes in this
    order. `changed` holds each request's changes by its key.
    """
    begun = {event.key for event in started}
    ends = {event.key: event for event in finished if event.key in begun}
    for key in changed.keys() - begun:
        yield from changed[key]
    yield from (event for event in finished if event.key not in begun)
    occupant: dict[int, int] = {}
    for event in started:
        previous = occupant.get(event.slot)
        if previous is not None and previous in ends:
            yield ends.pop(previous)
        occupant[event.slot] = event.key
        yield event
        # A request that is sent again may have been in the same message already.
        yield from changed.pop(event.key, ())
    yield from ends.values()


def _started_from(message: Any) -> Started:
    return Started(
        key=message.key,
        request_id=message.request_id,
        slot=message.slot,
        prompt_token_ids=tuple(message.prompt_token_ids),
        max_tokens=message.max_tokens,
        exact_output_tokens=message.exact_output_tokens,
        age=message.age,
        initial=message.initial_prediction,
        arrival_time_s=message.arrival_time_s,
        priority=message.priority,
        trace_headers=dict(message.trace_headers),
        passage=_passage_from(message),
    )


def _changes_from(messages: Any) -> dict[int, list[Changed]]:
    """Changes by key, in their order; those that this version does not know are left out."""
    changes: dict[int, list[Changed]] = {}
    for item in messages:
        change, cause = _CHANGES.get(item.change), _CAUSES.get(item.cause, Cause.NONE)
        if change is not None:
            rank = item.rank if item.HasField("rank") else None
            changed = Changed(item.key, change, item.time_ns, item.age, cause, item.other, rank)
            changes.setdefault(item.key, []).append(changed)
    return changes


def _passage_from(message: Any) -> Passage | None:
    if not message.HasField("passage"):
        return None
    passage = message.passage
    stated = {name: getattr(passage, name) for name in Passage._fields if name != "denied"}
    denied = frozenset(_CAUSES[cause] for cause in passage.denied if cause in _CAUSES)
    return Passage(**stated, denied=denied)


def _finished_from(message: Any) -> Finished:
    return Finished(
        key=message.key,
        slot=message.slot,
        output_tokens=message.output_tokens,
        preemptions=message.preemptions,
        recomputed_tokens=message.recomputed_tokens,
        finish_reason=message.finish_reason,
        passage=_passage_from(message),
    )
