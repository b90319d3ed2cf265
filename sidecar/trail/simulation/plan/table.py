"""The plan as tables, for the terminal and for the page."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from trail.report.figures import Styles
from trail.report.table import Cell, Table, print_table, seconds_text
from trail.simulation.plan.wording import findings, headline, judged_curve, measure_name

Document = Mapping[str, Any]


def print_plan(console: Console, document: Document) -> None:
    """Headline, the policies over load and at the load asked for, and what follows."""
    console.print(headline(document), style="bold", highlight=False, markup=False)
    print_table(console, f"{measure_name(document)}, seconds, by load", over_load(document))
    if document["c"] is not None:
        title = f"the queue at load {document['question']['load']:.3g}: response times in seconds"
        print_table(console, title, _at_load(document))
    for sentence in findings(document):
        console.print(f"- {sentence}", highlight=False, markup=False)


def over_load(document: Document, styles: Styles | None = None) -> Table:
    """What the plan judges by, by load."""
    loads = document["loads"]
    return Table(
        ["policy", *(f"{load:g}" for load in loads)],
        [[name, *map(seconds_text, judged_curve(arm))] for name, arm in document["arms"].items()],
        styles or {},
        groups=[(f"{measure_name(document)} in seconds, by load", len(loads))],
    )


def at_load_with_intervals(document: Document, styles: Styles) -> Table:
    """The queue at the load asked for; the interval of the simulated mean in small print."""
    headings = (
        "mean response\nclosed form, s", "simulated, s", "p50", "p95", "p99", "mean\nslowdown",
    )  # fmt: skip
    slots = document["service"]["slots"]
    rows: list[list[str | Cell]] = []
    for name, arm in document["arms"].items():
        at, simulated = arm["at"], arm["at"]["simulated"]
        rows.append(
            [
                name,
                *([seconds_text(at["latency_s"])] if slots else []),
                seconds_text(at["response_s"]),
                Cell(seconds_text(simulated["mean"]), f"± {seconds_text(simulated['half_width'])}"),
                *(seconds_text(simulated[key]) for key in ("p50", "p95", "p99")),
                f"{at['slowdown']:.3g}",
            ]
        )
    return Table(["policy", *(["mean latency\non slots, s"] if slots else []), *headings], rows, styles)


def _at_load(document: Document) -> Table:
    headings = ("policy", "closed\nform", "simu-\nlated", "+-", "p50", "p95", "p99", "slow-\ndown")
    rows = []
    for name, arm in document["arms"].items():
        at, simulated = arm["at"], arm["at"]["simulated"]
        times = (at["response_s"], *(simulated[key] for key in ("mean", "half_width", "p50", "p95", "p99")))
        rows.append([name, *map(seconds_text, times), f"{at['slowdown']:.3g}"])
    return Table(headings, rows)
