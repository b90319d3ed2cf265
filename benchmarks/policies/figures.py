"""The figures of `make sim`, as SVG text for inlining."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.policies.judge import OURS, RESERVED, knob_points
from benchmarks.policies.settings import KNOB
from trail.report.figures import Styles, legend, log_axis, svg
from trail.simulation.report import Line, ratios

Rows = Sequence[Mapping[str, Any]]

_COLUMNS = 3


def frontiers(rows: Rows, styles: Styles, name: str) -> str | None:
    """Mean against p99 latency, a panel a row: `adaptive` over kappa as a line, other policies as points."""
    shown = [row for row in rows if len(knob_points(row)) > 1]
    if not shown:
        return None
    lines = -(-len(shown) // _COLUMNS)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(lines, _COLUMNS, squeeze=False)
        for ax in axes.flat[len(shown) :]:
            ax.set_axis_off()
        for ax, row in zip(axes.flat, shown, strict=False):
            _frontier(ax, row, styles)
        for ax in axes[:, 0]:
            ax.set_ylabel("mean latency")
        legend(axes[0, 0])

    return svg(f"frontier-{name}", 0.8 + 2.9 * lines, draw)


def _frontier(ax: Axes, row: Mapping[str, Any], styles: Styles) -> None:
    points = knob_points(row)
    own = styles[OURS].light
    ax.plot([p for p, _, _ in points], [m for _, m, _ in points], color=own, linewidth=1.6, zorder=2)
    for p99, mean, arm in points:
        if arm != OURS:
            ax.plot([p99], [mean], "o", color=own, markersize=3, zorder=3)
    for arm, entry in row["arms"].items():
        if arm in KNOB:
            continue
        bold = arm == OURS
        # Stock's colour is that of stock with the watermark, too.
        ax.plot(
            [entry["p99_ratio"]], [entry["mean_ratio"]], "s" if arm == RESERVED else "o", label=arm,
            color=styles[arm].light, markersize=8 if bold else 5.5, zorder=5 if bold else 4,
        )  # fmt: skip
    ax.set_xscale("log")
    _widen(ax)
    log_axis(ax.xaxis)
    ax.set_xlabel("p99 latency")
    ax.set_title(f"{row['lengths']}, {_load(row)}, {row['device']}", fontsize=9.5)


def _widen(ax: Axes) -> None:
    """Differences of less than a few percent are shown as none, and 1 is always in sight."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    ax.set_xlim(min(left, 0.9), max(right, 1.3))
    ax.set_ylim(min(low, 0.9), max(high, 1.1))


def over_load(rows: Rows, styles: Styles, name: str) -> str | None:
    """Ratios to stock FCFS over load, a line an arm, of rows that differ in load alone."""
    lines = [
        Line(arm, styles[arm], [(row["load"], row["arms"][arm]) for row in rows])
        for arm in rows[0]["arms"]
        if arm not in KNOB and arm != "fcfs"
    ]
    name = name.replace(" ", "-").replace(",", "")
    return ratios(f"load-{name}", "load, times the capacity of stock FCFS", lines, barred={OURS})


def _load(row: Mapping[str, Any]) -> str:
    load = f"load {row['load']:g}"
    return f"bursts, {load}" if row["arrivals"] == "burst" else load
