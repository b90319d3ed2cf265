"""What an engine core tells the sidecar: every event once, as a value and as a message of `trail.v1`.

Fields are named as in `trail.v1`, which calls an `EngineSummary` a Passage. Times in `_ns` are
CLOCK_MONOTONIC, lengths and ages are in tokens, a key of 0 is no request.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trail.wire.changes import Cause, Change
from trail.wire.v1 import trail_pb2

UINT32_MAX = 2**32 - 1


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


class Clocks(NamedTuple):
    """The engine's clocks, read together: CLOCK_MONOTONIC and wall, in nanoseconds."""

    monotonic_ns: int
    wall_ns: int

    @classmethod
    def read(cls) -> "Clocks":
        """Both clocks at present."""
        return cls(time.monotonic_ns(), time.time_ns())


class EngineSummary(NamedTuple):
    """What a request has been through in the engine so far. A time is 0 where it has not come to that.

    `denied` holds each cause once, in the order in which they first came up.
    """

    queued_ns: int = 0
    admitted_ns: int = 0
    first_token_ns: int = 0
    ended_ns: int = 0
    waited_ns: int = 0
    policy_preemptions: int = 0
    memory_preemptions: int = 0
    granted: int = 0
    denied: tuple[Cause, ...] = ()
    fallback_steps: int = 0
    running: bool = False


@dataclass(frozen=True)
class Started:
    """A request arrived, or is sent again after a reconnect (`age`, `initial_prediction`)."""

    key: int
    request_id: str
    slot: int
    prompt_token_ids: Sequence[int] = field(repr=False)  # prompts are never printed
    max_tokens: int = 0
    exact_output_tokens: int = 0
    age: int = 0
    initial_prediction: float = 0.0
    arrival_time_s: float = 0.0  # wall clock
    priority: int = 0
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    summary: EngineSummary | None = None  # older engines state none


class Changed(NamedTuple):
    """An open request changed its state; `other` is the key of the request that it concerns besides."""

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
    summary: EngineSummary | None = None  # older engines state none


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
    """The engine's stream closed, which no message says; its requests stay until it returns or a timeout
    drops them."""


Event = Hello | Clocks | Started | Changed | Finished | Load | StreamEnded

_CHANGES = {int(change): change for change in Change}
_CAUSES = {int(cause): cause for cause in Cause}


def to_message(events: Iterable[Event]) -> trail_pb2.EngineEvents:
    """One message with all of `events`, those of each kind in their order."""
    message = trail_pb2.EngineEvents()
    for event in events:
        match event:
            case Started():
                message.started.append(_started_message(event))
            case Changed():
                message.changed.append(_changed_message(event))
            case Finished():
                message.finished.append(trail_pb2.RequestFinished(**_fields(event)))
            case Clocks():
                message.monotonic_ns, message.wall_ns = event
            case Load():
                message.load.CopyFrom(load_message(event))
            case Hello():
                message.hello.CopyFrom(hello_message(event))
    return message


def hello_message(hello: Hello) -> trail_pb2.Hello:
    """What an engine core says of itself."""
    return trail_pb2.Hello(**vars(hello))


def load_message(load: Load) -> trail_pb2.Load:
    """What an engine core says of its queues."""
    return trail_pb2.Load(**vars(load))


def from_message(message: Any) -> Iterator[Event]:
    """The events of one `EngineEvents`, in the order they are to be applied."""
    if message.HasField("hello"):
        yield _hello_from(message.hello)
    if message.wall_ns:
        yield Clocks(message.monotonic_ns, message.wall_ns)
    yield from _interleaved(
        [_started_from(item) for item in message.started],
        _changes_from(message.changed),
        [Finished(**_values(Finished, item), summary=_summary_from(item)) for item in message.finished],
    )
    if message.HasField("load"):
        yield Load(**_values(Load, message.load))


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


def _fields(event: Started | Finished) -> dict[str, Any]:
    """The fields of the event's message."""
    fields = vars(event).copy()
    summary = fields.pop("summary")
    if summary is not None:
        fields["passage"] = trail_pb2.Passage(**summary._asdict())
    return fields


def _started_message(event: Started) -> trail_pb2.RequestStarted:
    # vLLM takes any number of tokens for a limit.
    return trail_pb2.RequestStarted(**_fields(event) | {"max_tokens": min(event.max_tokens, UINT32_MAX)})


def _changed_message(event: Changed) -> trail_pb2.RequestChanged:
    return trail_pb2.RequestChanged(**event._asdict())


def _values(kind: type[Started | Finished | Load | Hello], message: Any) -> dict[str, Any]:
    """The fields of `kind` that a message states, but for the summary."""
    names = kind.__dataclass_fields__.keys() - {"summary"}
    return {name: getattr(message, name) for name in names}


def _hello_from(message: Any) -> Hello:
    caching = message.prefix_caching if message.HasField("prefix_caching") else None
    return Hello(**_values(Hello, message) | {"layers": tuple(message.layers), "prefix_caching": caching})


def _started_from(message: Any) -> Started:
    values = _values(Started, message)
    values["prompt_token_ids"] = tuple(message.prompt_token_ids)
    values["trace_headers"] = dict(message.trace_headers)
    return Started(**values, summary=_summary_from(message))


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


def _summary_from(message: Any) -> EngineSummary | None:
    if not message.HasField("passage"):
        return None
    passage = message.passage
    stated = {name: getattr(passage, name) for name in EngineSummary._fields if name != "denied"}
    denied = tuple(_CAUSES[cause] for cause in passage.denied if cause in _CAUSES)
    return EngineSummary(**stated, denied=denied)
