"""The waterfall of traces as SVG, in the page's own colours."""

from collections.abc import Sequence
from html import escape
from typing import Any

from benchmarks.observe.traces import (
    AGAIN,
    RUNNING,
    WAITING,
    Trace,
    begin_ns,
    change,
    end_ns,
    stretches,
)

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 1100, 150, 26, 26, 26
_CLASSES = {WAITING: "wait", RUNNING: "run", AGAIN: "again"}
_MARKS = {"first_token": "first", "protected": "safe", "denied": "deny"}
_TICKS = 6


def waterfall(traces: Sequence[Trace]) -> str:
    """A row a trace, on one axis of seconds: the client's span, vLLM's below it, TRAIL's with its states.

    Every bar and mark says in a tooltip what it is.
    """
    if not traces:
        return ""
    begin = min(begin_ns(t) for t in traces)
    length_ns = max(max(end_ns(t) for t in traces) - begin, 1)
    height = _TOP + _ROW * len(traces) + 8

    def x(ns: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (ns - begin) / length_ns

    parts = [f'<svg class="waterfall" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="traces">']
    for i in range(_TICKS + 1):
        at_ns = begin + length_ns * i // _TICKS
        parts.append(
            f'<line class="tick" x1="{x(at_ns):.1f}" x2="{x(at_ns):.1f}" y1="{_TOP - 6}" y2="{height}"/>'
            f'<text class="axis" x="{x(at_ns):.1f}" y="{_TOP - 11}">{(at_ns - begin) / 1e9:.2f} s</text>'
        )
    for place, trace in enumerate(traces):
        parts += _row(trace, _TOP + _ROW * place, x, begin)
    parts.append("</svg>")
    return "".join(parts)


def _row(trace: Trace, y: int, x: Any, begin: int) -> list[str]:
    assert trace.schedule is not None  # noqa: S101 - only those with one are shown
    attributes = trace.schedule["attributes"]
    tokens = attributes.get("gen_ai.usage.output_tokens", "?")
    predicted = attributes.get("trail.prediction.initial_tokens")
    label = f"{tokens} tokens" + (f" ({predicted:.0f})" if predicted is not None else "")
    parts = [
        f'<text class="name" x="{_LEFT - 8}" y="{y + 15}">{escape(label)}'
        f"<title>{escape(_about(attributes))}</title></text>"
    ]
    for span, kind, at, high in ((trace.client, "client", y + 2, 3), (trace.engine, "engine", y + 6, 3)):
        if span is not None:
            parts.append(
                _bar(
                    kind,
                    (x(span["start_ns"]), x(span["end_ns"])),
                    (at, high),
                    f"{span['name']}: {_long(span)}",
                )
            )
    for state, since, until in stretches(trace):
        told = f"{state}: {(until - since) / 1e9:.3f} s"
        parts.append(_bar(_CLASSES[state], (x(since), x(until)), (y + 11, 9), told))
    for event in trace.events:
        mark = _MARKS.get(change(event))
        if mark is not None:
            at, told = x(event["time_ns"]), f"{change(event)} at {(event['time_ns'] - begin) / 1e9:.3f} s"
            told += "".join(
                f", {name.removeprefix('trail.')} {value}"
                for name, value in sorted(event["attributes"].items())
            )
            parts.append(
                f'<rect class="{mark}" x="{at - 1:.1f}" y="{y + 9}" width="2" height="13">'
                f"<title>{escape(told)}</title></rect>"
            )
    return parts


def _bar(kind: str, across: tuple[float, float], down: tuple[int, int], told: str) -> str:
    (left, right), (y, height) = across, down
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{y}" width="{max(right - left, 0.8):.1f}" height="{height}">'
        f"<title>{escape(told)}</title></rect>"
    )


def _long(span: Any) -> str:
    return f"{(span['end_ns'] - span['start_ns']) / 1e9:.3f} s"


def _about(attributes: Any) -> str:
    return "\n".join(f"{name}: {value}" for name, value in sorted(attributes.items()))
