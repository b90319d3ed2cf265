"""The evaluation's document to one HTML page."""

from collections.abc import Mapping
from typing import Any

from trail.report.page import page
from trail.report.palette import predictor_styles, series_styles
from trail.training.evaluate import figures
from trail.training.evaluate.table import AGREEMENT, ERRORS, arms_table, shown_columns
from trail.training.evaluate.wording import (
    ARM_MEANINGS,
    OURS,
    PAPER,
    excess,
    findings,
    headline,
    share_text,
    speed_findings,
    speed_series,
    tokens_text,
)


def render(document: Mapping[str, Any]) -> str:
    """The page.

    `document` is what `trail evaluate` writes as JSON; its parts `floor`, `layers`, `speed` and `step_ms`
    may be None, and so may an arm's metrics that need probabilities or intervals.
    """
    arms, floor = document["arms"], document["floor"]
    styles = predictor_styles(list(arms))
    series = speed_series(document["speed"] or [])
    lines = series_styles(list(series))
    columns = shown_columns((*ERRORS, *AGREEMENT), arms, floor)
    return page(
        "trail.training.evaluate",
        "evaluation.html.j2",
        headline=headline(document),
        styles=[*styles.values(), *lines.values()],
        tiles=_tiles(arms, floor),
        d=document,
        model_name=document["model"].rstrip("/").rsplit("/", 1)[-1],
        findings=findings(document),
        arms=arms_table(document, columns, styles),
        meanings=[
            *((name, ARM_MEANINGS[name]) for name in arms if name in ARM_MEANINGS),
            *((column.heading, column.meaning) for column in columns),
        ],
        speed_findings=speed_findings(document),
        settings={name: _setting_text(value) for name, value in document["training"].items()},
        figures={
            "errors": figures.errors(arms, styles, floor),
            "along": figures.by_progress_and_length(arms, styles),
            "kinds": figures.by_kind(arms, styles),
            "calibration": figures.calibration(arms, styles),
            "maps": figures.heat_maps(arms, styles),
            "layers": figures.layer_sweep(document["layers"]),
            "speed": figures.speed(series, document["step_ms"], lines),
        },
    )


def _tiles(arms: Mapping[str, Any], floor: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The default predictor in a few numbers, each with what it is."""
    if OURS not in arms:
        return []
    ours = arms[OURS]
    tiles = [(tokens_text(ours["mae"]), "tokens of mean absolute error, default predictor")]
    if PAPER in arms and arms[PAPER]["mae"]:
        change = ours["mae"] / arms[PAPER]["mae"] - 1
        tiles.append((f"{100 * change:+.1f} %", "error against the paper's recipe (negative: less)"))
    if (above := excess(ours, floor)) is not None:
        tiles.append((f"{100 * above:+.1f} %", "error against the floor that the model's sampling sets"))
    if ours["coverage80"] is not None:
        tiles.append((share_text(ours["coverage80"]), "of the truth inside its 80 % intervals"))
    return tiles


def _setting_text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_setting_text(inner) for inner in value)
    return str(value)
