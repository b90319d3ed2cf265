"""The report's figures, as SVG text for inlining."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trail.report.palette import GRID, INK, ArmStyle, to_css_colours

Arms = Mapping[str, Mapping[str, Any]]
Styles = Mapping[str, ArmStyle]

_RC = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "legend.frameon": False,
}
_SCATTER_POINTS = 400


def speedups(arms: Arms, styles: Styles) -> str | None:
    """How many times lower than under fcfs: mean and p99 of latency and TTFT, with intervals."""
    shown = {n: a for n, a in arms.items() if a["speedup"] and a["speedup"]["latency_s"]}
    if not shown:
        return None
    panels = [
        ("latency_s", "mean", "mean latency"), ("ttft_s", "mean", "mean TTFT"),
        ("latency_s", "p99", "p99 latency"), ("ttft_s", "p99", "p99 TTFT"),
    ]  # fmt: skip

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (quantity, statistic, title) in zip(axes, panels, strict=True):
            for row, (name, arm) in enumerate(shown.items()):
                speedup = arm["speedup"][quantity]
                if speedup is None:
                    continue
                value, bounds = speedup[statistic], speedup["ci95"][statistic]
                colour = styles[name].marker
                if bounds:
                    ax.plot(
                        [max(bounds[0], 0.05), bounds[1]], [row, row], color=colour, linewidth=2.2, alpha=0.55
                    )
                ax.plot([value], [row], "o", color=colour, markersize=7)
                ax.annotate(
                    f"{value:.2f}x",
                    (value, row),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                )
            ax.axvline(1.0, color=INK, linewidth=1, dashes=(3, 2))
            ax.set_title(title)
            ax.set_ylim(len(shown) - 0.4, -0.75)
            ax.margins(x=0.18)
            ax.grid(axis="y", visible=False)
            ax.set_yticks(range(len(shown)), list(shown))

    return svg(draw, styles, "speedups", 10.0, 1.0 + 0.5 * len(shown))


def distributions(arms: Arms, styles: Styles) -> str:
    """Share of requests within a time, all repeats together, for latency and TTFT."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, (quantity, title) in zip(
            axes, (("latency_s", "latency"), ("ttft_s", "time to first token")), strict=True
        ):
            for name, arm in arms.items():
                values = np.sort(_pooled(arm, quantity))
                if values.size:
                    share = np.arange(1, values.size + 1) / values.size
                    keep = np.unique(np.linspace(0, values.size - 1, min(values.size, 300)).astype(int))
                    _line(ax, values[keep], share[keep], styles[name])
            ax.set_xscale("log")
            ax.set_title(f"{title}, seconds (log scale)")
            ax.set_ylim(0, 1.01)
            ax.xaxis.set_major_formatter("{x:g}")
        axes[0].set_ylabel("share of requests within")
        _legend(figure, arms, styles)

    return svg(draw, styles, "cdf", 10.0, 4.0)


def over_time(arms: Arms, styles: Styles) -> str:
    """Requests waiting for their first token, and tokens per second, over the first repeat."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for name, arm in arms.items():
            line = arm["runs"][0]["timeline"]
            times = (np.arange(len(line["waiting"])) + 0.5) * line["bin_s"]
            _line(axes[0], times, np.asarray(line["waiting"]), styles[name])
            _line(axes[1], times, _smooth(np.asarray(line["tokens_per_s"], dtype=np.float64)), styles[name])
        axes[0].set_title("requests waiting for their first token")
        axes[1].set_title("output tokens per second (mean of 5 bins)")
        for ax in axes:
            ax.set_xlabel("seconds since the first arrival")
            ax.set_ylim(bottom=0)
            ax.set_xlim(left=0)
        _legend(figure, arms, styles)

    return svg(draw, styles, "time", 10.0, 4.0)


def latency_by_length(arms: Arms, styles: Styles) -> str:
    """Latency against output length, a panel for every arm with the same axes, first repeat."""
    points = {n: _length_points(a["runs"][0]) for n, a in arms.items()}
    highest = max((float(y.max()) for _, y in points.values() if y.size), default=1.0)
    columns = min(4, len(points))
    rows = -(-len(points) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for ax in list(grid.flat)[len(points) :]:
            ax.set_visible(False)
        for ax, (name, (x, y)) in zip(grid.flat, points.items(), strict=False):
            ax.plot(x, y, "o", markersize=2.6, alpha=0.55, color=styles[name].marker, markeredgewidth=0)
            ax.set_title(name)
            ax.set_ylim(0, highest * 1.04)
        figure.supxlabel("output tokens", fontsize=10, color=INK)
        figure.supylabel("latency, seconds", fontsize=10, color=INK)

    return svg(draw, styles, "length", 10.0, 0.6 + 2.3 * rows)


def prediction_errors(arms: Arms, styles: Styles) -> str | None:
    """Mean absolute error in tokens: of r, and while generating, of r counted down and of the refined."""
    keys = (
        ("initial_mae_tokens", "r, whole length", 0.35),
        ("countdown_mae_tokens", "r counted down, every token", 0.6),
        ("refined_mae_tokens", "refined, every token", 1.0),
    )
    shown = {n: a["prediction"] for n, a in arms.items() if a["prediction"] and a["prediction"]["requests"]}
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        height = 0.26
        for row, (name, prediction) in enumerate(shown.items()):
            for j, (key, label, alpha) in enumerate(keys):
                value = prediction[key]
                if value is None:
                    continue
                at = row + (j - 1) * height
                ax.barh(at, value, height * 0.88, color=styles[name].marker, alpha=alpha)
                ax.annotate(
                    f"{value:.1f}  {label}",
                    (value, at),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                )
        ax.set_yticks(range(len(shown)), list(shown))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.35)
        ax.set_xlabel("mean absolute error, tokens")

    return svg(draw, styles, "error", 10.0, 0.8 + 0.85 * len(shown))


def _line(ax: Axes, x: Any, y: Any, style: ArmStyle) -> None:
    (line,) = ax.plot(x, y, color=style.marker)
    if style.dashes:
        line.set_dashes(style.dashes)


def _legend(figure: Figure, arms: Arms, styles: Styles) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for name in arms:
        handle = Line2D([], [], color=styles[name].marker, label=name)
        if dashes := styles[name].dashes:
            handle.set_dashes(dashes)
        handles.append(handle)
    figure.legend(handles=handles, loc="outside upper left", ncols=8, handlelength=2.4, columnspacing=1.4)


def svg(draw: Callable[[Figure], None], styles: Styles, name: str, width_in: float, height_in: float) -> str:
    """The figure that `draw` draws, as SVG for a page whose style sheet has the colours of `styles`.

    `name` keeps its ids apart from those of other figures of the page.
    """
    # The salt makes ids reproducible, and different among the figures of one page.
    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", text, count=1)
    return to_css_colours(text, list(styles.values()))


def _pooled(arm: Mapping[str, Any], quantity: str) -> Any:
    return np.asarray(
        [v for run in arm["runs"] for v in run["requests"][quantity] if v is not None and v > 0],
        dtype=np.float64,
    )


def _smooth(values: Any) -> Any:
    return np.convolve(values, np.ones(5) / 5, mode="same") if values.size >= 5 else values


def _length_points(run: Mapping[str, Any]) -> tuple[Any, Any]:
    requests = run["requests"]
    pairs = [
        (n, s) for n, s in zip(requests["output_tokens"], requests["latency_s"], strict=True) if s is not None
    ][:_SCATTER_POINTS]
    return np.asarray([n for n, _ in pairs]), np.asarray([s for _, s in pairs])


__all__: Sequence[str] = ("distributions", "latency_by_length", "over_time", "prediction_errors", "speedups")
