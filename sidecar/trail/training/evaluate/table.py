"""The evaluation's result as a terminal table, and its columns, which the page shows as well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from trail.report.figures import Styles
from trail.report.table import Table, print_table
from trail.training.evaluate.wording import excess, findings, headline, range_text, share_text, tokens_text

Arm = Mapping[str, Any]
Floor = Mapping[str, Any] | None


@dataclass(frozen=True)
class Column:
    """One measure of an arm: its heading, what it means, and its text for an arm and the floor."""

    heading: str
    meaning: str
    text: Callable[[Arm, Floor], str]


ERRORS = (
    Column(
        "MAE", "mean absolute error of the predicted remaining length", lambda a, _: tokens_text(a["mae"])
    ),
    Column(
        "95 % interval",
        "of the MAE, by a bootstrap over prompts",
        lambda a, _: range_text(a["mae_low"], a["mae_high"]),
    ),
    Column(
        "seeds",
        "lowest and highest MAE over the training seeds; the other columns are the first seed's",
        lambda a, _: seeds_text(a),
    ),
    Column(
        "above floor",
        "how far the MAE lies above the floor",
        lambda a, floor: share_text(excess(a, floor)),
    ),
)
AGREEMENT = (
    Column("RMSE", "root of the mean squared error", lambda a, _: tokens_text(a["rmse"])),
    Column("bias", "mean of predicted less true", lambda a, _: f"{a['bias']:+.2f}"),
    Column(
        "bin accuracy",
        "how often the most probable bin is the true one; arms may differ in their bins",
        lambda a, _: share_text(a["bin_accuracy"]),
    ),
    Column(
        "tau",
        "Kendall's tau-b of predicted against true: 1 is the order of shortest first, 0 is chance",
        lambda a, _: _decimals(a.get("kendall_tau")),
    ),
    Column(
        "80 % covers",
        "how often the central 80 % interval holds the truth; 80 % is right",
        lambda a, _: share_text(a["coverage80"]),
    ),
    Column("80 % width", "mean width of that interval", lambda a, _: tokens_text(a["width80"])),
    Column(
        "ECE",
        "expected calibration error of P(remaining < edge), mean over the bins' edges; 0 is right",
        lambda a, _: _decimals(a["ece"]),
    ),
)


def shown_columns(columns: Sequence[Column], arms: Mapping[str, Arm], floor: Floor) -> list[Column]:
    """The columns that say something about at least one arm."""
    return [column for column in columns if any(column.text(arm, floor) != "-" for arm in arms.values())]


def arms_table(document: Mapping[str, Any], columns: Sequence[Column], styles: Styles | None = None) -> Table:
    """Arms as rows."""
    arms, floor = document["arms"], document["floor"]
    shown = shown_columns(columns, arms, floor)
    return Table(
        ["arm", *("\n".join(column.heading.rsplit(" ", 1)) for column in shown)],
        [[name, *(column.text(arm, floor) for column in shown)] for name, arm in arms.items()],
        styles or {},
    )


def seeds_text(arm: Arm) -> str:
    """`18.1 to 18.6`: the range of the MAE over training seeds; `-` for fewer than two."""
    seeds = arm.get("mae_seeds") or []
    return range_text(min(seeds), max(seeds)) if len(seeds) > 1 else "-"


def print_arms(console: Console, document: Mapping[str, Any]) -> None:
    """The headline, arms as rows in two tables that fit 80 columns, and what follows from them."""
    test = document["test"]
    console.print(headline(document), style="bold", highlight=False, markup=False)
    console.print(
        f"{document['model']}: {test['prompts']:,} test prompts, {test['requests']:,} answers,"
        f" {test['rows']:,} decode steps",
        highlight=False,
        markup=False,
    )
    print_table(console, "mean absolute errors, tokens", arms_table(document, ERRORS))
    print_table(console, "other measures", arms_table(document, AGREEMENT))
    for sentence in findings(document):
        console.print(f"- {sentence}", highlight=False, markup=False)


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
