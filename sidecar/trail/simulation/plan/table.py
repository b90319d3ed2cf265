"""The plan as terminal tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from trail.report.table import seconds_text
from trail.simulation.plan.wording import findings, headline, judged_curve, measure_name


def print_plan(console: Console, document: Mapping[str, Any]) -> None:
    """Headline, the policies over load and at the load asked for, and what follows."""
    console.print(headline(document), style="bold", highlight=False, markup=False)
    arms, loads = document["arms"], document["loads"]
    over_load = _table(f"{measure_name(document)}, seconds, by load", [f"{load:g}" for load in loads])
    for name, arm in arms.items():
        over_load.add_row(name, *(seconds_text(value) for value in judged_curve(arm)))
    console.print(over_load)
    if document["c"] is not None:
        console.print(_at_load(arms, document["question"]["load"]))
    for sentence in findings(document):
        console.print(f"- {sentence}", highlight=False, markup=False)


def _at_load(arms: Mapping[str, Any], load: float) -> Table:
    headings = ("closed\nform", "simu-\nlated", "+-", "p50", "p95", "p99", "slow-\ndown")
    table = _table(f"the queue at load {load:.3g}: response times in seconds", headings)
    for name, arm in arms.items():
        at = arm["at"]
        simulated = at["simulated"]
        times = (at["response_s"], *(simulated[key] for key in ("mean", "half_width", "p50", "p95", "p99")))
        table.add_row(name, *map(seconds_text, times), f"{at['slowdown']:.3g}")
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
