"""The figures of `make sim`, as SVG text for inlining."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.policies.judge import OURS, RESERVED, knob_points
from benchmarks.policies.settings import KNOB
from trail.report.figures import svg
from trail.report.palette import INK, ArmStyle

Styles = Mapping[str, ArmStyle]
Rows = Sequence[Mapping[str, Any]]

_WIDTH_IN = 10.0
_COLUMNS = 3
_TITLES = {"mean_ratio": "mean latency", "ttft_ratio": "mean TTFT", "p99_ratio": "p99 latency"}
_TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
_DASHED = (4, 3)


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
        points = [n for n in shown[0]["arms"] if n in styles and n not in KNOB]
        handles = [
            Line2D([], [], color=styles[n].marker, marker=_marker(n), linestyle="", label=n) for n in points
        ]
        figure.legend(
            handles=handles, loc="outside upper left", ncols=6, columnspacing=1.2, handletextpad=0.2
        )

    return svg(draw, styles, f"frontier-{name}", _WIDTH_IN, 0.8 + 2.9 * lines)


def _frontier(ax: Axes, row: Mapping[str, Any], styles: Styles) -> None:
    points = knob_points(row)
    own = styles[OURS].marker
    ax.plot([p for p, _, _ in points], [m for _, m, _ in points], color=own, linewidth=1.6, zorder=2)
    for p99, mean, arm in points:
        if arm != OURS:
            ax.plot([p99], [mean], "o", color=own, markersize=3, zorder=3)
    for arm, entry in row["arms"].items():
        if arm in KNOB:
            continue
        bold = arm == OURS
        ax.plot(
            [entry["p99_ratio"]], [entry["mean_ratio"]], _marker(arm), color=styles[arm].marker,
            markersize=8 if bold else 5.5, zorder=5 if bold else 4,
        )  # fmt: skip
    ax.set_xscale("log")
    _widen(ax)
    _log_ticks(ax.xaxis)
    ax.set_xlabel("p99 latency")
    ax.set_title(f"{row['lengths']}, {_load(row)}, {row['device']}", fontsize=9.5)


def _marker(arm: str) -> str:
    """Stock's colour is that of stock with the watermark, too."""
    return "s" if arm == RESERVED else "o"


def _widen(ax: Axes) -> None:
    """Differences of less than a few percent are shown as none, and 1 is always in sight."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    ax.set_xlim(min(left, 0.9), max(right, 1.3))
    ax.set_ylim(min(low, 0.9), max(high, 1.1))


def over_load(rows: Rows, styles: Styles, name: str) -> str | None:
    """Ratios to stock FCFS over load, a line an arm, of rows that differ in load alone."""
    if len(rows) < 2:
        return None
    arms = [arm for arm in rows[0]["arms"] if arm not in KNOB and arm != "fcfs"]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(_TITLES))
        for ax, (quantity, title) in zip(panels, _TITLES.items(), strict=True):
            for arm in arms:
                _line(ax, rows, arm, quantity, styles[arm])
            ax.axhline(1.0, color=INK, linewidth=0.8, linestyle=(0, _DASHED))
            ax.set_title(title)
            ax.set_xlabel("load, times the capacity of stock FCFS")
            ax.set_yscale("log")
            _log_ticks(ax.yaxis)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5, handlelength=2.4)

    return svg(draw, styles, f"load-{name}", _WIDTH_IN, 4.0)


def _line(ax: Axes, rows: Rows, arm: str, quantity: str, style: ArmStyle) -> None:
    x = [row["load"] for row in rows]
    y = [row["arms"][arm][quantity] for row in rows]
    (line,) = ax.plot(x, y, color=style.marker, marker="o", markersize=3, label=arm)
    if style.dashes:
        line.set_dashes(style.dashes)
    for at, row in zip(x, rows, strict=True):
        bounds = row["arms"][arm].get(f"{quantity}_ci95")
        if bounds and arm == OURS:
            ax.plot([at, at], bounds, color=style.marker, linewidth=1.0, alpha=0.6)


def _log_ticks(axis: Any) -> None:
    axis.set_major_locator(LogLocator(subs=_TICKS))
    axis.set_major_formatter(lambda value, _place: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def _load(row: Mapping[str, Any]) -> str:
    load = f"load {row['load']:g}"
    return f"bursts, {load}" if row["arrivals"] == "burst" else load
