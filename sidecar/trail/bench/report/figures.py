"""The benchmark's figures, as SVG text for inlining; None where there is nothing to draw."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trail.report.figures import RULE, Styles, label, legend, line, named_rows, shares_within, svg
from trail.report.palette import INK

Arms = Mapping[str, Mapping[str, Any]]

_SCATTER_POINTS = 400
_CURVE_POINTS = 300


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
                colour = styles[name].light
                if bounds:
                    at = [max(bounds[0], 0.05), bounds[1]]
                    ax.plot(at, [row, row], color=colour, linewidth=2.2, alpha=0.55)
                ax.plot([value], [row], "o", color=colour, markersize=7)
                label(ax, f"{value:.2f}x", (value, row), (0, 11), "center")
            ax.axvline(1.0, **RULE)
            ax.set_title(title)
            ax.margins(x=0.18)
            named_rows(ax, list(shown), above=0.75)

    return svg("speedups", 1.0 + 0.5 * len(shown), draw)


def distributions(arms: Arms, styles: Styles) -> str:
    """Share of requests within a time, all repeats together, for latency and TTFT."""

    def curve(arm: Mapping[str, Any], quantity: str) -> tuple[Any, Any]:
        every = (v for run in arm["runs"] for v in run["requests"][quantity])
        values = np.sort([v for v in every if v is not None and v > 0])
        share = np.arange(1, values.size + 1) / max(values.size, 1)
        keep = np.unique(np.linspace(0, values.size - 1, min(values.size, _CURVE_POINTS)).astype(int))
        return values[keep], share[keep]

    curves = {name: {q: curve(arm, q) for q in ("latency_s", "ttft_s")} for name, arm in arms.items()}
    return shares_within("cdf", curves, styles)


def over_time(arms: Arms, styles: Styles) -> str:
    """Requests waiting for their first token, and tokens per second, over the first repeat."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for name, arm in arms.items():
            found = arm["runs"][0]["timeline"]
            times = (np.arange(len(found["waiting"])) + 0.5) * found["bin_s"]
            line(axes[0], times, found["waiting"], styles[name], name)
            rate = np.asarray(found["tokens_per_s"], dtype=np.float64)
            line(axes[1], times, _smooth(rate), styles[name], name)
        axes[0].set_title("requests waiting for their first token")
        axes[1].set_title("output tokens per second (mean of 5 bins)")
        for ax in axes:
            ax.set_xlabel("seconds since the first arrival")
            ax.set_ylim(bottom=0)
            ax.set_xlim(left=0)
        legend(axes[0])

    return svg("time", 4.0, draw)


def latency_by_length(arms: Arms, styles: Styles) -> str:
    """Latency against output length, a panel for every arm with the same axes, first repeat."""
    points = {n: _length_points(a["runs"][0]) for n, a in arms.items()}
    highest = max((float(y.max()) for _, y in points.values() if y.size), default=1.0)
    columns = min(4, len(points))
    rows = -(-len(points) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for ax in grid.flat[len(points) :]:
            ax.set_visible(False)
        for ax, (name, (x, y)) in zip(grid.flat, points.items(), strict=False):
            ax.plot(x, y, "o", markersize=2.6, alpha=0.55, color=styles[name].light, markeredgewidth=0)
            ax.set_title(name)
            ax.set_ylim(0, highest * 1.04)
        figure.supxlabel("output tokens", fontsize=10, color=INK)
        figure.supylabel("latency, seconds", fontsize=10, color=INK)

    return svg("length", 0.6 + 2.3 * rows, draw)


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
            for j, (key, text, alpha) in enumerate(keys):
                value = prediction[key]
                if value is None:
                    continue
                at = row + (j - 1) * height
                ax.barh(at, value, height * 0.88, color=styles[name].light, alpha=alpha)
                label(ax, f"{value:.1f}  {text}", (value, at), (5, 0))
        named_rows(ax, list(shown))
        ax.margins(x=0.35)
        ax.set_xlabel("mean absolute error, tokens")

    return svg("error", 0.8 + 0.85 * len(shown), draw)


def _smooth(values: Any) -> Any:
    return np.convolve(values, np.ones(5) / 5, mode="same") if values.size >= 5 else values


def _length_points(run: Mapping[str, Any]) -> tuple[Any, Any]:
    requests = run["requests"]
    pairs = [
        (n, s) for n, s in zip(requests["output_tokens"], requests["latency_s"], strict=True) if s is not None
    ][:_SCATTER_POINTS]
    return np.asarray([n for n, _ in pairs]), np.asarray([s for _, s in pairs])
