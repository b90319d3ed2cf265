"""The plan's figures, as SVG text for inlining."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from trail.report.figures import RULE, Styles, label, legend, line, svg
from trail.report.palette import INK
from trail.simulation.plan.wording import judged_curve, measure_name


def over_load(document: Mapping[str, Any], styles: Styles) -> str:
    """Mean latency or response time, and mean slowdown, of every policy over load."""
    loads, question = document["loads"], document["question"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for name, arm in document["arms"].items():
            line(left, loads, judged_curve(arm), styles[name], name, dots=3)
            line(right, loads, arm["slowdown"], styles[name], name, dots=3)
        left.set_title(f"{measure_name(document)}, seconds (log scale)")
        right.set_title("mean slowdown in the queue (log scale)")
        if question["target_s"] is not None:
            left.axhline(question["target_s"], **RULE)
            label(left, "target", (loads[0], question["target_s"]), (0, 7))
        for ax in (left, right):
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("{x:g}")
            ax.yaxis.get_minor_locator().set_params(subs=(2, 5))
            ax.set_xlabel("load")
            if question["load"] < 1:
                ax.axvline(question["load"], color=INK, linewidth=1, alpha=0.4)
        legend(left)

    return svg("load", 4.2, draw)


def by_c(document: Mapping[str, Any]) -> str | None:
    """Mean response time over c at the load asked for; None where that is beyond capacity."""
    found = document["c"]
    if found is None:
        return None

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.plot(found["c"], found["response_s"], "o-", color=INK, markersize=5)
        best = (found["best"], found["response_s"][found["c"].index(found["best"])])
        label(ax, f"best, c = {found['best']:g}", best, (0, -14), "right")
        ax.margins(x=0.03, y=0.25)
        ax.set_xlabel("c")
        ax.set_ylabel("mean response time, seconds")

    return svg("c", 3.0, draw)
