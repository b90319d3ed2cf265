"""The evaluation's document to one HTML page."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from trail.report.page import Folded, Soft, figure, page, points, section
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

_FLOOR = (
    " The dashed line is the floor, its band the floor's 95 % interval: the model draws its answers by"
    " chance, so even a predictor that knew the model's own distribution of lengths would err by this much."
)
_CALIBRATION = (
    "Only arms that give a distribution. Left: of the steps at which an arm states a probability (10 groups,"
    " all edges together), how often it came true; the dashed diagonal is right. Right: the interval from"
    " the 10 % to the 90 % quantile should hold the truth in 80 % of the steps; more is too cautious, less"
    " too sure. Among arms that hold it equally often, the narrower interval knows more."
)
_MAPS = (
    "Columns are the true remaining length, in ten equal ranges. The stronger the colour, the larger the"
    " share of a column's steps that were predicted in that range; half of them or more give the full"
    " colour. The dashed diagonal is right."
)


def render(document: Mapping[str, Any]) -> str:
    """The page.

    `document` is what `trail evaluate` writes as JSON; its parts `floor`, `layers`, `speed` and `step_ms`
    may be None, and so may an arm's metrics that need probabilities or intervals.
    """
    arms, floor, test = document["arms"], document["floor"], document["test"]
    styles = predictor_styles(list(arms))
    series = speed_series(document["speed"] or [])
    lines = series_styles(list(series))
    model_name = document["model"].rstrip("/").rsplit("/", 1)[-1]
    columns = (*ERRORS, *AGREEMENT)
    meanings = [(name, ARM_MEANINGS[name]) for name in arms if name in ARM_MEANINGS]
    meanings += [(column.heading, column.meaning) for column in shown_columns(columns, arms, floor)]
    speed = figures.speed(series, document["step_ms"], lines)
    seeds = ", the ticks above a bar are training seeds" if len(document["seeds"]) > 1 else ""
    return page(
        title=f"TRAIL evaluation: {model_name}",
        headline=headline(document),
        lead=[
            model_name,
            f"predictor {document['predictor']}",
            f"{test['prompts']:,} test prompts, {test['requests']:,} answers, {test['rows']:,} decode steps",
            document["created_at"],
        ],
        tiles=_tiles(arms, floor),
        styles=[*styles.values(), *lines.values()],
        sections=[
            section("What was found", points(findings(document))),
            section(
                "All arms",
                Soft(
                    "How many tokens are still to come, predicted at every decode step. Lengths and errors"
                    " in tokens."
                ),
                arms_table(document, columns, styles),
                Folded("What the arms and columns mean", meanings),
            ),
            section(
                "Mean error",
                figure(
                    figures.errors(arms, styles, floor),
                    f"Shorter is better. The line at a bar's end is the 95 % interval over prompts{seeds}."
                    f"{_FLOOR if floor else ''}",
                ),
            ),
            section(
                "Where the errors are",
                figure(
                    figures.by_progress_and_length(arms, styles),
                    "Left: every step of every answer, by how far the answer has come. Right: every step, by"
                    " the whole length of its answer.",
                ),
            ),
            section("By kind of prompt", figure(figures.by_kind(arms, styles))),
            section(
                "Does an arm know what it does not know?",
                figure(figures.calibration(arms, styles), _CALIBRATION),
            ),
            section("Predicted against true", figure(figures.heat_maps(arms, styles), _MAPS)),
            section(
                "Layers",
                figure(
                    figures.layer_sweep(document["layers"]),
                    "The same training on the hidden states of different layers. The axis does not start at"
                    " 0.",
                ),
            ),
            section(
                "What a prediction costs",
                " ".join(speed_findings(document)) or None,
                figure(speed, "The predictor's computation alone. Both axes are logarithmic."),
            ),
            section("", Folded("How this was measured", _facts(document))),
        ],
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


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    test = document["test"]
    seeds = ", ".join(map(str, document["seeds"]))
    answers = (
        f"{test['mean_output_tokens']:.1f} tokens on average; {test['censored_left_out']:,} left out because"
        " a limit cut them off, so that their length is not known"
    )
    if test.get("trained_on_left_out"):
        answers += (
            f"; {test['trained_on_left_out']:,} left out because the predictor was trained on their prompts"
        )
    return [
        ("Command", Markup("<code>{}</code>").format(document["command"])),
        ("Model", document["model"]),
        ("Predictor", document["predictor"]),
        ("Training seeds", f"{seeds}; figures and tables show the first, unless they say otherwise"),
        ("Test answers", answers),
        (
            "Intervals",
            "95 % percentile bootstrap over prompts; differences draw the same prompts for both arms",
        ),
        *((key.replace("_", " "), _setting_text(value)) for key, value in document["training"].items()),
    ]


def _setting_text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_setting_text(inner) for inner in value)
    return str(value)
