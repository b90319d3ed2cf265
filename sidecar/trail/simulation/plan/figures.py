"""The plan's figures, as SVG text for inlining."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trail.report.figures import svg
from trail.report.palette import INK, ArmStyle
from trail.simulation.plan.wording import judged_curve, measure_name

Styles = Mapping[str, ArmStyle]

_WIDTH_IN = 10.0


def over_load(document: Mapping[str, Any], styles: Styles) -> str:
    """Mean latency or response time, and mean slowdown, of every policy over load."""
    arms, question = document["arms"], document["question"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for name, arm in arms.items():
            _line(left, document["loads"], judged_curve(arm), styles[name])
            _line(right, document["loads"], arm["slowdown"], styles[name])
        left.set_title(f"{measure_name(document)}, seconds (log scale)")
        right.set_title("mean slowdown in the queue (log scale)")
        if question["target_s"] is not None:
            left.axhline(question["target_s"], color=INK, linewidth=1, dashes=(3, 2))
            _label(left, "target", (document["loads"][0], question["target_s"]), (0, 7))
        for ax in (left, right):
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("{x:g}")
            ax.yaxis.get_minor_locator().set_params(subs=(2, 5))
            ax.set_xlabel("load")
            if question["load"] < 1:
                ax.axvline(question["load"], color=INK, linewidth=1, alpha=0.4)
        handles = [_handle(name, styles[name]) for name in arms]
        figure.legend(handles=handles, loc="outside upper left", ncols=6, handlelength=2.4, columnspacing=1.4)

    return svg(draw, styles, "load", _WIDTH_IN, 4.2)


def by_c(document: Mapping[str, Any]) -> str | None:
    """Mean response time over c at the load asked for; None where that is beyond capacity."""
    found = document["c"]
    if found is None:
        return None

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.plot(found["c"], found["response_s"], "o-", color=INK, markersize=5)
        best = found["c"].index(found["best"])
        _label(
            ax, f"best, c = {found['best']:g}", (found["best"], found["response_s"][best]), (0, -14), "right"
        )
        ax.margins(x=0.03, y=0.25)
        ax.set_xlabel("c")
        ax.set_ylabel("mean response time, seconds")

    return svg(draw, {}, "c", _WIDTH_IN, 3.0)


def _line(ax: Axes, x: Any, y: Any, style: ArmStyle) -> None:
    (line,) = ax.plot(x, y, color=style.marker, marker="o", markersize=3)
    if style.dashes:
        line.set_dashes(style.dashes)


def _handle(name: str, style: ArmStyle) -> Line2D:
    handle = Line2D([], [], color=style.marker, label=name)
    if style.dashes:
        handle.set_dashes(style.dashes)
    return handle


def _label(ax: Axes, text: str, at: tuple[float, float], shift: tuple[int, int], ha: str = "left") -> None:
    ax.annotate(text, at, xytext=shift, textcoords="offset points", ha=ha, va="center", fontsize=9)
