"""What was observed as one HTML page."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from benchmarks.observe.plots import STYLES, over_time, predictions
from benchmarks.observe.traces import chosen, join
from benchmarks.observe.waterfall import waterfall
from trail.report.page import environment

SHOWN = 36
"""Traces in the waterfall."""


def render(document: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    traces = join(document["spans"], document["events"])
    shown = chosen(traces, SHOWN)
    pairs = [_lengths(t.schedule["attributes"]) for t in traces if t.schedule is not None]
    known = [pair for pair in pairs if pair is not None]
    drawn = {
        "waterfall": waterfall(shown),
        "over_time": over_time(document["series"]) if document["series"]["at_s"] else "",
        "predictions": predictions(known) if known else "",
    }
    return (
        environment("benchmarks.observe")
        .get_template("observe.html.j2")
        .render(
            d=document,
            shown=len(shown),
            all_styles=list(STYLES.values()),
            figures={name: Markup(text) for name, text in drawn.items()},  # noqa: S704 - our own drawing
        )
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
