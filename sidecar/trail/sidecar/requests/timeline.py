"""The record of a request from its arrival to its end, which everything that tells of requests reads.

It is written by the loop's thread alone. Other threads may read it at any time: what they see is whole but
for the moment that is just being added. Once `ended`, it never changes.
"""

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from trail.policy.spec import PolicySpec
from trail.sidecar.requests.predictions import PredictionHistory
from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import EngineSummary

MOMENTS = 64
"""Moments of a request that are kept, but for its end, which always is; later ones are counted."""

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


class State(enum.IntEnum):
    """Where a request is, numbered as in `trail.v1` (RequestState)."""

    WAITING = 1
    RUNNING = 2
    ENDED = 3


class Moment(NamedTuple):
    """One change of a request's state.

    `time_ns` is CLOCK_MONOTONIC, `age` generated tokens. `other` is the id of the request that took its place
    (PREEMPTED) or kept its own (DENIED), empty where it is not known. `rank` is the request's rank in that
    step (protected: minus infinity; NaN: the engine kept its own order), `remaining` what was predicted then
    of the tokens still to come (NaN: nothing), `cutoff` the age from which it is protected (-1: none known).
    """

    time_ns: int
    change: Change
    age: int
    cause: Cause = Cause.NONE
    other: str = ""
    rank: float = math.nan
    remaining: float = math.nan
    cutoff: int = -1


@dataclass(frozen=True)
class Ending:
    """What is known of a request once it has ended. Lengths in tokens.

    `limit` is the most it could have generated (0: unknown), `prompt_said` what the prompt predictor gave for
    its length (0: nothing). Of `predictions` refined ones `history` holds some or all; `refined_mae` is the
    mean absolute error of their lengths, NaN without one. `by_prompt`: it was ranked by its prompt's
    prediction counted down, and not by these. `policy` and `generation` were in force at its end.
    """

    output_tokens: int
    preemptions: int
    recomputed_tokens: int
    finish_reason: str
    limit: int
    prompt_said: float
    predictions: int
    refined_mae: float
    history: PredictionHistory
    by_prompt: bool
    policy: PolicySpec
    generation: int

    @property
    def whole(self) -> bool:
        """Whether the length is the request's own, so that prediction errors mean something."""
        return self.finish_reason in ("stop", "length")


@dataclass(slots=True)
class RequestTimeline:
    """One request, from its arrival in this engine on.

    `arrival_s` is vLLM's own arrival time (wall clock), `wall_offset_ns` what turns CLOCK_MONOTONIC into the
    wall clock. `trace_headers` are those the client sent (W3C trace context). `age` is the number of
    generated tokens as far as it is known. `initial` is the initial prediction in tokens, `refined` the last
    one of its total length, known once it ended; NaN without one. `cutoff` is the cut-off age, -1 without
    one. `summary` is kept from moment to moment and replaced by the engine's own sum at the end. `found`: the
    sidecar heard of it when it was open, so that earlier moments are missing. `waiting_since_ns` is when its
    present wait began, 0 while it runs or where that is not known.
    """

    engine: int
    key: int
    slot: int
    request_id: str
    prompt_tokens: int
    max_tokens: int = 0
    priority: int = 0
    arrival_s: float = 0.0
    wall_offset_ns: int = 0
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    found: bool = False
    state: State = State.WAITING
    age: int = 0
    initial: float = math.nan
    initial_source: Cause = Cause.NONE
    refined: float = math.nan
    cutoff: int = -1
    protected: bool = False
    admission_rank: float = math.nan
    summary: EngineSummary = field(default_factory=EngineSummary)
    waiting_since_ns: int = 0
    moments: list[Moment] = field(default_factory=list)
    left_out: int = 0
    ending: Ending | None = None

    def add(self, moment: Moment) -> None:
        """Take a moment, and what follows from it: state, age, waits and counts."""
        if len(self.moments) < MOMENTS or moment.change == Change.ENDED:
            self.moments.append(moment)
        else:
            self.left_out += 1
        change, now_ns = moment.change, moment.time_ns
        self.age = max(self.age, moment.age)
        if change in (Change.ADMITTED, Change.RESUMED):
            self._admitted(now_ns)
            if change == Change.ADMITTED:
                self.admission_rank = moment.rank
        elif change == Change.PREEMPTED:
            name = "memory_preemptions" if moment.cause == Cause.KV_FULL else "policy_preemptions"
            count = getattr(self.summary, name) + 1
            self.summary = self.summary._replace(**{name: count}, running=False)
            self.state, self.waiting_since_ns = State.WAITING, now_ns
        elif change == Change.FIRST_TOKEN:
            self.summary = self.summary._replace(first_token_ns=now_ns)
        elif change == Change.DENIED:
            if moment.cause not in self.summary.denied:
                self.summary = self.summary._replace(denied=(*self.summary.denied, moment.cause))
        elif change == Change.PROTECTED:
            self.protected = True
        elif change == Change.ENDED:
            self.summary = self.summary._replace(ended_ns=now_ns, running=False)
            self.state, self.waiting_since_ns = State.ENDED, 0

    def _admitted(self, now_ns: int) -> None:
        summary, since_ns = self.summary, self.waiting_since_ns
        self.summary = summary._replace(
            admitted_ns=summary.admitted_ns or now_ns,
            waited_ns=summary.waited_ns + (max(now_ns - since_ns, 0) if since_ns else 0),
            running=True,
        )
        self.state, self.waiting_since_ns = State.RUNNING, 0

    @property
    def ended(self) -> bool:
        """Whether it has ended; it never changes then."""
        return self.ending is not None

    @property
    def trace_id(self) -> str:
        """The trace that the client's `traceparent` names, 32 hexadecimal digits; empty without one."""
        match = _TRACEPARENT.match(self.trace_headers.get("traceparent", ""))
        return match[1] if match is not None else ""

    @property
    def preemptions(self) -> int:
        """How often it was preempted, for whatever reason."""
        return self.summary.policy_preemptions + self.summary.memory_preemptions

    @property
    def admission_s(self) -> float:
        """Seconds from entering the queue to its first step, NaN where it is not known."""
        return _between_s(self.summary.queued_ns, self.summary.admitted_ns)

    @property
    def first_token_s(self) -> float:
        """Seconds from arrival to the first token, NaN where it is not known."""
        return self._from_arrival_s(self.summary.first_token_ns)

    @property
    def total_s(self) -> float:
        """Seconds from arrival to the end, NaN where it is not known."""
        return self._from_arrival_s(self.summary.ended_ns)

    @property
    def queued_s(self) -> float:
        """Seconds in the queue, all waits that are over together, NaN where nothing is known of it."""
        return self.summary.waited_ns / 1e9 if self.summary.queued_ns else math.nan

    @property
    def starts_ns(self) -> int:
        """Its arrival by the wall clock, in nanoseconds."""
        if self.arrival_s > 0:
            return int(self.arrival_s * 1e9)
        return self.wall_ns(self.summary.queued_ns or self.moments[0].time_ns)

    def wall_ns(self, time_ns: int) -> int:
        """A point of CLOCK_MONOTONIC by the wall clock, in nanoseconds."""
        return time_ns + self.wall_offset_ns

    def _from_arrival_s(self, time_ns: int) -> float:
        return (self.wall_ns(time_ns) - self.starts_ns) / 1e9 if time_ns else math.nan


def _between_s(first_ns: int, then_ns: int) -> float:
    return (then_ns - first_ns) / 1e9 if first_ns and then_ns else math.nan
