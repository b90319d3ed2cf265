"""What an OTLP receiver keeps of a few requests, made by hand."""

from typing import Any

from benchmarks.observe.run import Came, Plan, document

S = 10**9
BEGIN = 1_000_000 * S


def span(
    name: str, trace: str, span_id: str, parent: str, start: float, end: float, **more: Any
) -> dict[str, Any]:
    return {
        "name": name, "service": "x", "trace_id": trace, "span_id": span_id, "parent_id": parent,
        "start_ns": BEGIN + int(start * S), "end_ns": BEGIN + int(end * S), "attributes": more,
    }  # fmt: skip


def event(name: str, trace: str, at: float, **more: Any) -> dict[str, Any]:
    return {
        "name": f"trail.request.{name}", "service": "x", "trace_id": trace, "span_id": f"{trace}-s",
        "time_ns": BEGIN + int(at * S), "attributes": {"trail.age": 1, **more},
    }  # fmt: skip


def request(
    place: int, *, tokens: int = 40, received: int | None = None, preempted: bool = False
) -> tuple[Any, Any]:
    """Spans and events of one request that begins at `place` tenths of a second."""
    trace, at = f"t{place:03}", place / 10
    spans = [
        span("client request", trace, f"{trace}-c", "", at, at + 2.0,
             **{"client.output_tokens": tokens if received is None else received}),
        span("llm_request", trace, f"{trace}-e", f"{trace}-c", at + 0.05, at + 1.9),
        span("trail.schedule", trace, f"{trace}-s", f"{trace}-c", at + 0.1, at + 1.8,
             **{"gen_ai.usage.output_tokens": tokens, "trail.prediction.initial_tokens": tokens + 6.0,
                "trail.prediction.refined_tokens": tokens + 1.0, "trail.request.id": "<b>r</b>"}),
    ]  # fmt: skip
    events = [event("admitted", trace, at + 0.5), event("first_token", trace, at + 0.6)]
    if preempted:
        events += [
            event("preempted", trace, at + 0.8, **{"trail.cause": "slot"}), event("resumed", trace, at + 1.2),
            event("protected", trace, at + 1.3, **{"trail.rank": float("-inf")}),
            event("denied", trace, at + 0.4),
        ]  # fmt: skip
    return spans, events


def made(requests: int = 60) -> dict[str, Any]:
    """A whole document."""
    parts = [request(i, preempted=i % 4 == 0) for i in range(requests)]
    n = 20
    columns = ("running", "waiting", "kv_usage", "running_tokens", "waiting_tokens", "policy_preemptions",
               "memory_preemptions")  # fmt: skip
    series = {"at_s": [i / 4 for i in range(n)], **{name: [float(i) for i in range(n)] for name in columns}}
    return document(
        Plan("trail-c0.8", requests, 60.0),
        Came(requests, 9.5, series),
        [s for spans, _ in parts for s in spans],
        [e for _, events in parts for e in events],
    )
