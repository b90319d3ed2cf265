"""The comparison as terminal tables and as one HTML page."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.fidelity.compare import TIMES, TOLERANCE
from trail.report.page import environment
from trail.report.palette import arm_styles
from trail.report.table import seconds_text

NAMES = {"latency_s": "mean latency", "ttft_s": "mean TTFT"}


def headline(document: Mapping[str, Any]) -> str:
    """What was found, in a sentence."""
    found = document["verdict"]
    return (
        f"{found['within']} of {found['compared']} simulated means are within {100 * TOLERANCE:g} % of vLLM's"
        f" or in the interval of its repeats ({found['within_tolerance']} within {100 * TOLERANCE:g} %);"
        f" {found['pairs_alike']} of {found['pairs']} pairs of arms that differ rank alike"
    )


def print_tables(console: Console, document: Mapping[str, Any]) -> None:
    """Simulated over real, a table a load."""
    for load in document["loads"]:
        table = Table(
            title=f"load {load['load']}: seconds, real and simulated",
            title_justify="left",
            title_style="",
            box=SIMPLE,
        )
        table.add_column("arm", no_wrap=True)
        for time in TIMES:
            for heading in (NAMES[time], "simulated", "ratio", ""):
                table.add_column(heading, justify="right")
        for arm in load[TIMES[0]]["arms"]:
            cells = []
            for time in TIMES:
                row = load[time]["arms"][arm]
                cells += [
                    seconds_text(row["real_s"]) + _interval(row["real_ci95_s"]),
                    seconds_text(row["simulated_s"]),
                    f"{row['ratio']:.2f}",
                    "" if row["within"] else "off",
                ]
            table.add_row(arm, *cells)
        console.print(table)
        for time in TIMES:
            for pair in load[time]["pairs"]:
                if not pair["alike"]:
                    console.print(
                        f"{NAMES[time]} of {' / '.join(pair['arms'])}: {pair['real_ratio']:.2f} in fact,"
                        f" {pair['simulated_ratio']:.2f} simulated",
                        highlight=False,
                    )
    console.print(headline(document), highlight=False)


def render(document: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    styles = arm_styles(
        list(dict.fromkeys(arm for load in document["loads"] for arm in load[TIMES[0]]["arms"]))
    )
    templates = environment("benchmarks.fidelity")
    templates.filters["seconds"] = seconds_text
    return templates.get_template("fidelity.html.j2").render(
        d=document,
        headline=headline(document),
        times=TIMES,
        names=NAMES,
        styles=styles,
        all_styles=list(styles.values()),
    )


def _interval(bounds: list[float] | None) -> str:
    return f" [{seconds_text(max(bounds[0], 0.0))}, {seconds_text(bounds[1])}]" if bounds else ""
