"""The evaluation's figures, as SVG text for inlining."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trail.report.figures import RULE, Styles, label, legend, line, named_rows, svg
from trail.report.palette import INK
from trail.training.evaluate.wording import band_text

Arms = Mapping[str, Mapping[str, Any]]

_DOTS = 3.5
_MAPPED = ("prompt-countdown", "trail-paper-raw", "trail-paper-refined", "default")
_FULL_COLOUR_SHARE = 0.5


def errors(arms: Arms, styles: Styles, floor: Mapping[str, Any] | None) -> str:
    """MAE of every arm with its interval and its training seeds, and the floor as a band."""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for row, (name, arm) in enumerate(arms.items()):
            colour, right = styles[name].light, arm["mae"]
            ax.barh(row, arm["mae"], 0.62, color=colour, alpha=0.75)
            if arm["mae_low"] is not None:
                ax.plot([arm["mae_low"], arm["mae_high"]], [row, row], color=INK, linewidth=1.6)
                right = max(right, arm["mae_high"])
            if len(seeds := arm.get("mae_seeds") or []) > 1:
                ax.plot(seeds, np.full(len(seeds), row - 0.42), "|", color=INK, markersize=5)
                right = max(right, *seeds)
            label(ax, f"{arm['mae']:.1f}", (right, row), (6, 0))
        if floor:
            if floor["mae_low"] is not None:
                ax.axvspan(floor["mae_low"], floor["mae_high"], color=INK, alpha=0.13, linewidth=0)
            ax.axvline(floor["mae"], **RULE)
            label(ax, f"floor {floor['mae']:.1f}", (floor["mae"], -0.72), (4, 0))
        named_rows(ax, list(arms), above=1.05 if floor else 0.6)
        ax.set_xlim(left=0)
        ax.margins(x=0.1)
        ax.set_xlabel("mean absolute error, tokens")

    return svg("errors", 1.0 + 0.36 * len(arms), draw)


def by_progress_and_length(arms: Arms, styles: Styles) -> str:
    """MAE along the request's life, and by how long the whole answer is."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for name, arm in arms.items():
            deciles, bands = (_maes(arm[key]) for key in ("by_decile", "by_length"))
            line(axes[0], 10.0 * np.arange(len(deciles)) + 5, deciles, styles[name], name, dots=_DOTS)
            line(axes[1], np.arange(len(bands)), bands, styles[name], name, dots=_DOTS)
        axes[0].set_title("by progress through the answer")
        axes[0].set_xlabel("tokens generated, % of the whole answer")
        axes[0].set_xlim(0, 100)
        axes[0].set_ylabel("mean absolute error, tokens")
        axes[1].set_title("by the answer's whole length")
        axes[1].set_xlabel("tokens of the whole answer, a fifth of the answers each")
        first = next(iter(arms.values()))["by_length"]
        names = [band_text(band).removesuffix(" tokens") for band in first]
        axes[1].set_xticks(range(len(names)), names)
        axes[1].set_xlim(-0.3, len(names) - 0.7)
        for ax in axes:
            ax.set_ylim(bottom=0)
        legend(axes[0])

    return svg("along", 4.3, draw)


def by_kind(arms: Arms, styles: Styles) -> str | None:
    """MAE for every kind of prompt, one row a kind, most frequent first."""
    first = next(iter(arms.values()))["by_kind"]
    if not first:
        return None
    kinds = sorted(first, key=lambda kind: -int(first[kind]["rows"]))

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for j, (name, arm) in enumerate(arms.items()):
            # Apart by a little, so that equal errors do not hide each other.
            at = np.arange(len(kinds)) + 0.6 * ((j + 0.5) / len(arms) - 0.5)
            values = [arm["by_kind"][kind]["mae"] for kind in kinds]
            ax.plot(values, at, "o", color=styles[name].light, markersize=6, label=name)
        ax.set_yticks(range(len(kinds)), [f"{kind} ({first[kind]['rows']:,} steps)" for kind in kinds])
        ax.set_yticks(np.arange(len(kinds) - 1) + 0.5, minor=True)
        ax.grid(axis="y", visible=False)
        ax.grid(axis="y", which="minor")
        ax.tick_params(which="minor", length=0)
        ax.set_ylim(len(kinds) - 0.5, -0.5)
        ax.set_xlim(left=0)
        ax.margins(x=0.05)
        ax.set_xlabel("mean absolute error, tokens")
        legend(ax)

    return svg("kinds", 1.5 + 0.5 * len(kinds), draw)


def calibration(arms: Arms, styles: Styles) -> str | None:
    """Stated against observed probabilities, and how often 80 % intervals hold the truth."""
    shown = {name: arm for name, arm in arms.items() if arm["coverage80"] is not None}
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        left.plot([0, 1], [0, 1], **RULE)
        for row, (name, arm) in enumerate(shown.items()):
            if arm["reliability"]:
                points = [_numbers(arm["reliability"][key]) for key in ("predicted", "observed")]
                filled = np.isfinite(points[0])
                line(left, points[0][filled], points[1][filled], styles[name], name, dots=_DOTS)
            right.barh(row, 100 * arm["coverage80"], 0.6, color=styles[name].light, alpha=0.75)
            text = f"{100 * arm['coverage80']:.1f} %, {arm['width80']:.0f} tokens wide"
            label(right, text, (0, row - 0.42), (2, 0))
        left.set_title("probability that fewer tokens remain than a bin's edge")
        left.set_xlabel("stated")
        left.set_ylabel("observed")
        left.set_xlim(0, 1)
        left.set_ylim(0, 1)
        left.set_yticks(np.linspace(0.2, 1, 5))  # the horizontal axis' 0 stands at the same corner
        right.axvline(80, **RULE)
        right.set_title("truth inside the central 80 % interval, %")
        right.set_xlim(0, 100)
        named_rows(right, list(shown), above=0.75)

    return svg("calibration", 4.0, draw)


def heat_maps(arms: Arms, styles: Styles) -> str:
    """Predicted against true remaining length, a panel for every main arm with the same axes."""
    names = [name for name in _MAPPED if name in arms] or list(arms)[: len(_MAPPED)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(_MAPPED), sharex=True, sharey=True, squeeze=False)[0]
        for ax in axes[len(names) :]:
            ax.set_visible(False)
        for ax, name in zip(axes, names, strict=False):
            _heat_map(ax, arms[name]["heatmap"], styles[name].light)
            ax.set_title(name)
            ax.set_xlabel("true remaining, tokens")
        axes[0].set_ylabel("predicted, tokens")

    return svg("maps", 3.1, draw)


def layer_sweep(layers: Mapping[str, Mapping[str, float]] | None) -> str | None:
    """MAE of a probe on every layer that was tried."""
    if not layers:
        return None
    tried = sorted(int(layer) for layer in layers)
    values = [layers[str(layer)]["mae"] for layer in tried]
    best = int(np.argmin(values))

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.plot(tried, values, "o-", color=INK, markersize=5)
        ax.plot([tried[best]], [values[best]], "o", color=INK, markersize=9)
        label(ax, f"layer {tried[best]}: {values[best]:.2f}", (tried[best], values[best]), (0, -16), "center")
        ax.set_xticks(_thinned(tried, 16))
        ax.margins(x=0.06, y=0.25)
        ax.set_xlabel("layer (Hugging Face hidden_states index)")
        ax.set_ylabel("mean absolute error, tokens")

    return svg("layers", 3.2, draw)


def speed(
    series: Mapping[str, Sequence[tuple[int, float]]], step_ms: float | None, styles: Styles
) -> str | None:
    """Time of a prediction by batch size: for one request, and for the batch beside a step of the model."""
    if not series:
        return None
    batches = sorted({batch for points in series.values() for batch, _ in points})

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for name, points in series.items():
            batch, micros = np.asarray(points, dtype=np.float64).T
            line(axes[0], batch, micros, styles[name], name, dots=_DOTS)
            line(axes[1], batch, batch * micros / 1000, styles[name], name, dots=_DOTS)
        axes[0].set_title("microseconds a request")
        axes[1].set_title("milliseconds a batch")
        if step_ms:
            axes[1].axhline(step_ms, **RULE)
            label(axes[1], f"a step of the model, {step_ms:.3g} ms", (batches[0], step_ms), (0, 8))
        for ax in axes:
            ax.set_xscale("log")
            ax.set_yscale("log")
            ticks = _thinned(batches, 5)
            ax.set_xticks(ticks, [f"{batch:,}" for batch in ticks])
            ax.set_xticks([], minor=True)
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
            ax.tick_params(which="minor", length=0)
            ax.margins(x=0.04, y=0.12)
            ax.set_xlabel("requests in the batch")
        legend(axes[0])

    return svg("speed", 3.8, draw)


def _heat_map(ax: Axes, heatmap: Mapping[str, Any], colour: str) -> None:
    counts = np.asarray(heatmap["counts"], dtype=np.float64)
    cells = len(counts)
    width = heatmap["max_tokens"] / cells
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i, j in np.argwhere(counts):
        # Rectangles, not an image: an image's colours could not follow the reader's theme.
        strength = min(1.0, shares[i, j] / _FULL_COLOUR_SHARE)
        cell = Rectangle((i * width, j * width), width, width, linewidth=0, facecolor=colour, alpha=strength)
        ax.add_patch(cell)
    end = cells * width
    ax.plot([0, end], [0, end], **RULE)
    ax.set_xlim(0, end)
    ax.set_ylim(0, end)
    ax.set_aspect("equal")


def _thinned(values: Sequence[int], most: int) -> Sequence[int]:
    """Every so many of `values`, the last one included, so that `most` labels stand beside each other."""
    return values[:: -max(1, -(-len(values) // most))][::-1]


def _maes(groups: Sequence[Mapping[str, Any]]) -> Any:
    return _numbers([group["mae"] for group in groups])


def _numbers(values: Sequence[float | None]) -> Any:
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
