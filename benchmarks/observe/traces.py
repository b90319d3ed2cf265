"""Spans and events of one trace put together: the client's, vLLM's and TRAIL's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLIENT, ENGINE, SCHEDULE = "client request", "llm_request", "trail.schedule"
"""Names of the three spans of a request."""
WAITING, RUNNING, AGAIN = "waiting", "running", "preempted"
_EVENT = "trail.request."

Span = Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """One request. Spans as plain values (`ReceivedSpan`'s fields), None where they did not come; `events`
    are those of the schedule span, oldest first.
    """

    trace_id: str
    client: Span | None
    engine: Span | None
    schedule: Span | None
    events: tuple[Span, ...]

    @property
    def whole(self) -> bool:
        """Whether all three spans are there, vLLM's and TRAIL's as children of the client's."""
        if self.client is None or self.engine is None or self.schedule is None:
            return False
        parent = self.client["span_id"]
        return bool(self.engine["parent_id"] == parent and self.schedule["parent_id"] == parent)

    @property
    def preemptions(self) -> int:
        """How often it gave way."""
        return sum(change(event) == "preempted" for event in self.events)

    @property
    def length_agrees(self) -> bool:
        """Whether TRAIL's span tells as many output tokens as the client received."""
        if self.client is None or self.schedule is None:
            return False
        told = self.schedule["attributes"].get("gen_ai.usage.output_tokens")
        return bool(told == self.client["attributes"].get("client.output_tokens"))


def join(spans: Iterable[Span], events: Iterable[Span]) -> list[Trace]:
    """The traces that hold a client's or a schedule span, by the beginning of the request."""
    by_trace: dict[str, dict[str, Span]] = {}
    for span in spans:
        if span["name"] in (CLIENT, ENGINE, SCHEDULE):
            by_trace.setdefault(span["trace_id"], {})[span["name"]] = span
    said: dict[str, list[Span]] = {}
    for event in events:
        said.setdefault(event["span_id"], []).append(event)
    traces = []
    for trace_id, named in by_trace.items():
        schedule = named.get(SCHEDULE)
        own = said.get(schedule["span_id"], []) if schedule is not None else []
        traces.append(
            Trace(
                trace_id,
                named.get(CLIENT),
                named.get(ENGINE),
                schedule,
                tuple(sorted(own, key=lambda event: int(event["time_ns"]))),
            )
        )
    return sorted(traces, key=begin_ns)


def change(event: Span) -> str:
    """What changed, as in `admitted`."""
    return str(event["name"]).removeprefix(_EVENT)


def begin_ns(trace: Trace) -> int:
    """When its first span begins."""
    return min(int(s["start_ns"]) for s in (trace.client, trace.engine, trace.schedule) if s is not None)


def end_ns(trace: Trace) -> int:
    """When its last span ends."""
    return max(int(s["end_ns"]) for s in (trace.client, trace.engine, trace.schedule) if s is not None)


def stretches(trace: Trace) -> list[tuple[str, int, int]]:
    """What the request did from the beginning of its schedule span to the end: (state, from, to) in ns."""
    span = trace.schedule
    if span is None:
        return []
    state, since = WAITING, int(span["start_ns"])
    found: list[tuple[str, int, int]] = []
    for event in trace.events:
        becomes = {"admitted": RUNNING, "resumed": RUNNING, "preempted": AGAIN}.get(change(event))
        if becomes is None or becomes == state:
            continue
        at = min(max(int(event["time_ns"]), since), int(span["end_ns"]))
        found.append((state, since, at))
        state, since = becomes, at
    found.append((state, since, int(span["end_ns"])))
    return found


def chosen(traces: Sequence[Trace], most: int) -> list[Trace]:
    """At most `most` of them to look at: half those that gave way most often, the others evenly spread."""
    shown = [t for t in traces if t.schedule is not None]
    if len(shown) <= most:
        return shown
    preempted = sorted((t for t in shown if t.preemptions), key=lambda t: -t.preemptions)[: most // 2]
    ids = {t.trace_id for t in preempted}
    others = [t for t in shown if t.trace_id not in ids]
    wanted = most - len(preempted)
    spread = [others[round(i * (len(others) - 1) / max(wanted - 1, 1))] for i in range(wanted)]
    return sorted([*preempted, *spread], key=begin_ns)
