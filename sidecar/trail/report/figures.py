"""What figures are drawn with: SVG text for a page; lines, labels and axes that several of them have."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from trail.report.palette import GRID, INK, Style, css_variable

Styles = Mapping[str, Style]
"""By the name of what is drawn."""

RULE: dict[str, Any] = {"color": INK, "linewidth": 1, "dashes": (3, 2)}
"""A dashed line at a value that others are compared with."""

_WIDTH_IN = 10.0
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
    "ytick.minor.size": 0,
    "legend.frameon": False,
}
_TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def svg(name: str, height_in: float, draw: Callable[[Figure], None]) -> str:
    """The figure that `draw` draws, as SVG for a page that knows its colours (`trail.report.page`).

    `name` keeps its ids apart from those of other figures of the page.
    """
    # The salt makes ids reproducible, and different among the figures of one page.
    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", text, count=1)
    text = text.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    return re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda colour: f"var({css_variable(colour[0])})", text)


def line(ax: Axes, x: Any, y: Any, style: Style, label: str, *, dots: float = 0.0) -> None:
    """A line, with dots of `dots` points at its values."""
    ax.plot(
        x, y, color=style.light, dashes=style.dashes or (None, None), marker="o", markersize=dots, label=label
    )


def label(ax: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], ha: str = "left") -> None:
    """Small text beside a point, `shift` points away from it."""
    ax.annotate(text, at, xytext=shift, textcoords="offset points", ha=ha, va="center", fontsize=9)


def legend(ax: Axes) -> None:
    """Above the whole figure, what `ax` has labels for: in one row where they fit, else in rows of five."""
    handles, labels = ax.get_legend_handles_labels()
    width_in = sum(0.62 + 0.075 * len(text) for text in labels)
    ax.figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=len(labels) if width_in < 0.95 * _WIDTH_IN else 5,
        handlelength=2.4,
        columnspacing=1.4,
    )


def named_rows(ax: Axes, names: Sequence[str], above: float = 0.6) -> None:
    """One row a name, the first on top with `above` rows of room over it."""
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.4, -above)
    ax.grid(axis="y", visible=False)


def log_axis(axis: Any) -> None:
    """Ticks of a logarithmic axis of ratios, written out."""
    axis.set_major_locator(LogLocator(subs=_TICKS))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def shares_within(name: str, curves: Mapping[str, Mapping[str, tuple[Any, Any]]], styles: Styles) -> str:
    """Share of requests within a time: `curves` hold for every arm (seconds, share) of latency and TTFT."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        titles = {"latency_s": "latency", "ttft_s": "time to first token"}
        for ax, (quantity, title) in zip(panels, titles.items(), strict=True):
            for arm, curve in curves.items():
                line(ax, *curve[quantity], styles[arm], arm)
            ax.set_xscale("log")
            ax.set_title(f"{title}, seconds (log scale)")
            ax.set_ylim(0, 1.01)
            ax.xaxis.set_major_formatter("{x:g}")
        panels[0].set_ylabel("share of requests within")
        legend(panels[0])

    return svg(name, 4.0, draw)
