"""What was observed as one HTML page."""

from collections.abc import Mapping
from typing import Any

from benchmarks.observe.plots import over_time, predictions
from benchmarks.observe.traces import chosen, join
from benchmarks.observe.waterfall import waterfall
from trail.report.page import page
from trail.report.palette import PAIR

SHOWN = 36
"""Traces in the waterfall."""


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    traces = join(document["spans"], document["events"])
    shown = chosen(traces, SHOWN)
    pairs = [_lengths(t.schedule["attributes"]) for t in traces if t.schedule is not None]
    known = [pair for pair in pairs if pair is not None]
    series, plan = document["series"], document["plan"]
    return page(
        "benchmarks.observe",
        "observe.html.j2",
        headline=f"{document['whole_traces']} requests, traced from client to schedule",
        styles=PAIR,
        tiles=[
            (f"{document['completed']}/{plan['requests']}", "requests answered"),
            (
                document["whole_traces"],
                "traces with client span, llm_request and trail.schedule, rightly parented",
            ),
            (document["lengths_agree"], "spans whose length is that of the tokens received"),
            (document["preemptions"], "preemptions among the traced requests"),
        ],
        d=document,
        shown=len(shown),
        figures={
            "waterfall": waterfall(shown),
            "over_time": over_time(series) if series["at_s"] else None,
            "predictions": predictions(known) if known else None,
        },
    )


def _lengths(attributes: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Length, initial and last refined prediction of a request, in tokens; None where one is missing."""
    names = (
        "gen_ai.usage.output_tokens", "trail.prediction.initial_tokens", "trail.prediction.refined_tokens",
    )  # fmt: skip
    values = [attributes.get(name) for name in names]
    if any(value is None for value in values):
        return None
    length, initial, refined = (float(value) for value in values if value is not None)
    return length, initial, refined
