"""A shadow report's document to one HTML page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from trail.report.figures import svg
from trail.report.page import environment
from trail.report.palette import arm_styles
from trail.report.table import seconds_text


def headline(document: Mapping[str, Any]) -> str:
    """The best policy's estimated gain in a sentence."""
    best, found = max(document["gains"].items(), key=lambda item: item[1]["mean_latency_s"])
    gain = found["mean_latency_s"]
    if gain < 1:
        return f"{best} would not answer sooner: mean latency {1 / gain:.2f} times higher"
    return f"{best} would lower the mean latency {gain:.2f} times"


def render(document: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    styles = arm_styles(list(document["arms"]))
    templates = environment("trail.simulation.shadow")
    templates.filters["seconds"] = seconds_text
    return templates.get_template("shadow.html.j2").render(
        d=document,
        headline=headline(document),
        all_styles=list(styles.values()),
        styles=styles,
        figure=Markup(_curves(document)),  # noqa: S704 - our own drawing
    )


def _curves(document: Mapping[str, Any]) -> str:
    styles = arm_styles(list(document["arms"]))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for ax, (quantity, title) in zip(
            panels, (("latency_s", "latency"), ("ttft_s", "time to first token")), strict=True
        ):
            for name, curve in document["curves"].items():
                values = curve[quantity]
                if not values:
                    continue
                (line,) = ax.plot(
                    np.maximum(values, 1e-4), np.linspace(0, 1, len(values)), color=styles[name].marker,
                    label=name,
                )  # fmt: skip
                if dashes := styles[name].dashes:
                    line.set_dashes(dashes)
            ax.set_xscale("log")
            ax.set_title(f"{title}, seconds (log scale)")
            ax.set_ylim(0, 1.01)
            ax.xaxis.set_major_formatter("{x:g}")
        panels[0].set_ylabel("share of requests within")
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=8, handlelength=2.4
        )

    return svg(draw, styles, "shadow", 10.0, 4.0)
