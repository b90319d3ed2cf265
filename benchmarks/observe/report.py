"""What was observed as one HTML page."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from benchmarks.observe.plots import over_time, predictions
from benchmarks.observe.traces import chosen, join
from benchmarks.observe.waterfall import waterfall
from trail.report.page import Soft, figure, page, section
from trail.report.palette import PAIR

SHOWN = 36
"""Traces in the waterfall."""

_BARS = {
    "client": ("#5f6672", "#a3abb8", "client span"),
    "engine": ("#187a4f", "#58c790", "llm_request (vLLM)"),
    "wait": ("#c9ced6", "#474d57", "trail.schedule: waiting"),
    "run": ("#2f63b8", "#7fb0ff", "running"),
    "again": ("#d98324", "#f0a33f", "preempted, waiting again"),
    "first": ("#010b1a", "#ffffff", "first token"),
    "safe": ("#187a4f", "#58c790", "protected from here on"),
    "deny": ("#b3261e", "#ff8a80", "denied another's place"),
}
"""What the waterfall draws: its colour on light and on dark paper, and what it means."""


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    traces = join(document["spans"], document["events"])
    shown = chosen(traces, SHOWN)
    pairs = [_lengths(t.schedule["attributes"]) for t in traces if t.schedule is not None]
    known = [pair for pair in pairs if pair is not None]
    series, plan = document["series"], document["plan"]
    return page(
        title=f"TRAIL observed: {plan['policy']}",
        headline=f"{document['whole_traces']} requests, traced from client to schedule",
        lead=[
            "demo",
            plan["policy"],
            f"{plan['requests']} requests at {plan['rate_per_s']:g} a second, answered in"
            f" {document['seconds']:.1f} s",
            document["created_at"],
        ],
        tiles=[
            (f"{document['completed']}/{plan['requests']}", "requests answered"),
            (
                str(document["whole_traces"]),
                "traces with client span, llm_request and trail.schedule, rightly parented",
            ),
            (str(document["lengths_agree"]), "spans whose length is that of the tokens received"),
            (str(document["preemptions"]), "preemptions among the traced requests"),
        ],
        styles=PAIR,
        css=_css(),
        sections=[
            section(
                "Where requests spent their time",
                Soft(
                    f"{len(shown)} of {document['traces']} traces: those preempted most often, and others"
                    " evenly spread. Beside each its tokens, and in brackets how many were predicted at"
                    " first. Hover for attributes."
                ),
                _legend(),
                figure(waterfall(shown)) or "No trace came.",
            ),
            section(
                "Over time",
                figure(
                    over_time(series) if series["at_s"] else None,
                    "As the sidecar reports it (Observe.Snapshot), four times a second. The first named line"
                    " is solid, the second dashed.",
                )
                or "The sidecar did not answer.",
            ),
            section(
                "Predictions against what came",
                figure(
                    predictions(known) if known else None,
                    "One dot a request, from the attributes of its span. On the dashed line the prediction"
                    " is right.",
                )
                or "No span has both predictions.",
            ),
        ],
    )


def _legend() -> Markup:
    items = Markup("").join(
        Markup('<span><i class="{}"></i>{}</span>').format(name, meaning)
        for name, (_, _, meaning) in _BARS.items()
    )
    return Markup('<p class="legend">{}</p>').format(items)


def _css() -> str:
    light, dark = (" ".join(f"--{name}: {bar[i]};" for name, bar in _BARS.items()) for i in (0, 1))
    fills = "\n".join(
        f".waterfall .{name}, i.{name} {{ fill: var(--{name}); background: var(--{name}); }}"
        for name in _BARS
    )
    return f""":root {{ {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
.waterfall text {{ fill: currentColor; font-size: 11px; }}
.waterfall .name {{ text-anchor: end; font-variant-numeric: tabular-nums; }}
.waterfall .axis {{ text-anchor: middle; fill: var(--soft); }}
.waterfall .tick {{ stroke: var(--grid); stroke-width: 1; }}
{fills}
.legend {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .87rem; color: var(--soft); }}
.legend i {{ display: inline-block; width: 1.1em; height: .6em; border-radius: 2px; margin-right: .4em; }}
.legend i.first, .legend i.safe, .legend i.deny {{ width: .2em; height: 1em; vertical-align: middle; }}"""


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
