"""The report of `trail bench` with what only a sweep can show: arms over load, and over c."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from trail.bench.report.page import render as render_bench
from trail.report.figures import RULE, Styles, legend, line, log_axis, svg
from trail.report.palette import Style, arm_styles

Sweep = Sequence[Mapping[str, Any]]

_TITLES = {"mean_ratio": "mean latency", "ttft_ratio": "mean TTFT", "p99_ratio": "p99 latency"}


@dataclass(frozen=True)
class Line:
    """One line of `ratios`: where it is on the axis, and the ratios there with their intervals."""

    label: str
    style: Style
    points: Sequence[tuple[float, Mapping[str, Any]]]


def render(results: Mapping[str, Any]) -> str:
    """The page for results with a part `sweep`."""
    sweep: Sweep = results["sweep"]
    styles = arm_styles(list(results["arms"]))
    over_load = (
        "Times as multiples of stock FCFS on the same requests, by load. Below 1 is better; bars are 95 %"
        " intervals over seeds."
    )
    over_c = "The same at the last load, by the bound c on preemption: 0 protects what runs, 1 allows all."
    more = [
        ("Over load", load_figure(sweep, styles), over_load),
        ("Over c", c_figure(sweep, styles), over_c),
    ]
    return render_bench(results, more)


def load_figure(sweep: Sweep, styles: Styles) -> str | None:
    """Ratios to stock FCFS over load, a line an arm; None for one load, or without stock FCFS."""
    loads = [_load(entry["load"]) for entry in sweep]
    lines = [
        Line(
            name,
            style,
            [
                (x, entry["arms"][name])
                for x, entry in zip(loads, sweep, strict=True)
                if x is not None and name in entry["arms"]
            ],
        )
        for name, style in styles.items()
    ]
    return None if None in loads else ratios("sweep-load", "load, times the capacity of stock FCFS", lines)


def c_figure(sweep: Sweep, styles: Styles) -> str | None:
    """Ratios over c at the last load, a line a policy; None where no policy has two values of c."""
    families: dict[str, list[tuple[float, str, Any]]] = {}
    for name, arm in sweep[-1]["arms"].items():
        if arm["c"] is not None:
            families.setdefault(name.replace(f"-c{arm['c']:g}", ""), []).append((arm["c"], name, arm))
    # A family is drawn as its first arm.
    lines = [
        Line(
            family,
            styles[members[0][1]],
            sorted(((c, arm) for c, _, arm in members), key=lambda point: point[0]),
        )
        for family, members in families.items()
    ]
    return ratios("sweep-c", "c", lines)


def ratios(name: str, axis: str, lines: Sequence[Line], barred: Collection[str] | None = None) -> str | None:
    """Ratios to stock FCFS of the same requests, a panel a quantity; None where no line has two points.

    Intervals are shown of the lines named in `barred`; None: of all.
    """
    shown = []
    for found in lines:
        points = [(x, entry) for x, entry in found.points if "mean_ratio" in entry]
        if len(points) > 1:
            shown.append(Line(found.label, found.style, points))
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(_TITLES))
        for ax, (quantity, title) in zip(panels, _TITLES.items(), strict=True):
            for found in shown:
                values = [entry[quantity] for _, entry in found.points]
                line(ax, [x for x, _ in found.points], values, found.style, found.label, dots=3.5)
                for x, entry in found.points if barred is None or found.label in barred else ():
                    if bounds := entry.get(f"{quantity}_ci95"):
                        ax.plot([x, x], bounds, color=found.style.light, linewidth=1.0, alpha=0.6)
            ax.axhline(1.0, **RULE)
            ax.set_title(title)
            ax.set_xlabel(axis)
            ax.set_yscale("log")
            log_axis(ax.yaxis)
        legend(panels[0])

    return svg(name, 4.2, draw)


def _load(text: str) -> float | None:
    return float(text[:-1]) if text.endswith("x") else None
