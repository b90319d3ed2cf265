"""A shadow report's document to one HTML page."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trail.report.figures import Styles, shares_within
from trail.report.page import page
from trail.report.palette import arm_styles
from trail.report.stats import STATISTICS
from trail.report.table import Table, seconds_text

_TIMES = ("latency_s", "ttft_s")


def headline(document: Mapping[str, Any]) -> str:
    """The best policy's estimated gain in a sentence."""
    best, found = max(document["gains"].items(), key=lambda item: item[1]["mean_latency_s"])
    gain = found["mean_latency_s"]
    if gain < 1:
        return f"{best} would not answer sooner: mean latency {1 / gain:.2f} times higher"
    return f"{best} would lower the mean latency {gain:.2f} times"


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    styles = arm_styles(list(document["arms"]))
    return page(
        "trail.simulation.shadow",
        "shadow.html.j2",
        headline=headline(document),
        styles=styles.values(),
        tiles=_tiles(document),
        d=document,
        curves=_curves(document, styles),
        times=_table(document, styles),
    )


def _curves(document: Mapping[str, Any], styles: Styles) -> str:
    def curve(values: Any) -> tuple[Any, Any]:
        return np.maximum(values, 1e-4), np.linspace(0, 1, len(values))

    curves = {name: {q: curve(found[q] or []) for q in _TIMES} for name, found in document["curves"].items()}
    return shares_within("shadow", curves, styles)


def _table(document: Mapping[str, Any], styles: Styles) -> Table:
    columns = [(quantity, statistic) for quantity in _TIMES for statistic in STATISTICS]
    return Table(
        ["arm", *(statistic for _, statistic in columns)],
        [
            [name, *(seconds_text(arm[q][s] if arm[q] else None) for q, s in columns)]
            for name, arm in document["arms"].items()
        ],
        styles,
        groups=[("latency, seconds", 4), ("time to first token, seconds", 4)],
    )


def _tiles(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    tiles = []
    for name, gain in document["gains"].items():
        tiles += [
            (f"{gain['mean_latency_s']:.2f}x", f"lower mean latency, {name}, estimated"),
            (f"{gain['mean_ttft_s']:.2f}x", f"lower mean time to first token, {name}"),
            (f"{gain['p99_latency_s']:.2f}x", f"lower p99 latency, {name} (below 1: higher)"),
        ]
    if document["fidelity"] is not None:
        meaning = "simulated over logged mean latency in the engine's own order (1 is right)"
        tiles.append((f"{document['fidelity']:.2f}", meaning))
    return tiles
