"""The comparison as terminal tables and as one HTML page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from benchmarks.fidelity.compare import TIMES, TOLERANCE
from trail.report.figures import Styles
from trail.report.page import page
from trail.report.palette import arm_styles
from trail.report.table import Cell, Table, print_table, seconds_text

Load = Mapping[str, Any]

_COLUMNS = ("vLLM", "simulated", "ratio")
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
        columns = (f"{NAMES[time]}\n{column}" for time in TIMES for column in _COLUMNS)
        table = replace(_table(load, {}), headings=["\narm", *columns])
        print_table(console, f"load {load['load']}: seconds, real and simulated (!: off)", table)
        for time in TIMES:
            for sentence in _unlike(load[time]["pairs"]):
                console.print(f"{NAMES[time]} of {sentence}", highlight=False)
    console.print(headline(document), highlight=False)


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    arms = dict.fromkeys(arm for load in document["loads"] for arm in load[TIMES[0]]["arms"])
    styles = arm_styles(list(arms))
    loads = [
        (load, _table(load, styles), [_pairs(NAMES[time], load[time]["pairs"]) for time in TIMES])
        for load in document["loads"]
    ]
    return page(
        "benchmarks.fidelity",
        "fidelity.html.j2",
        headline=headline(document),
        styles=styles.values(),
        d=document,
        loads=loads,
    )


def _table(load: Load, styles: Styles) -> Table:
    rows = []
    for arm in load[TIMES[0]]["arms"]:
        row: list[str | Cell] = [arm]
        for time in TIMES:
            found = load[time]["arms"][arm]
            bounds = found["real_ci95_s"]
            between = f"{seconds_text(max(bounds[0], 0.0))} to {seconds_text(bounds[1])}" if bounds else ""
            repeats = " ".join(f"{ratio:.2f}" for ratio in found["repeats"])
            row += [
                Cell(seconds_text(found["real_s"]), between),
                seconds_text(found["simulated_s"]),
                Cell(f"{found['ratio']:.2f}", repeats, warn=not found["within"]),
            ]
        rows.append(row)
    groups = [(f"{NAMES[time]}, seconds", 3) for time in TIMES]
    return Table(["arm", *_COLUMNS * len(TIMES)], rows, styles, groups)


def _pairs(name: str, pairs: list[Mapping[str, Any]]) -> str:
    wrong = _unlike(pairs)
    alike = len(pairs) - len(wrong)
    counted = (
        f"{name}: {len(pairs)} pairs of arms differ for sure, {alike} of them the same way in the simulator."
    )
    return " ".join([counted, *(f"{sentence}." for sentence in wrong)])


def _unlike(pairs: list[Mapping[str, Any]]) -> list[str]:
    """Of pairs that the simulator ranks the other way round, what their ratios are."""
    return [
        f"{' / '.join(pair['arms'])}: {pair['real_ratio']:.2f} in fact, {pair['simulated_ratio']:.2f}"
        " simulated"
        for pair in pairs
        if not pair["alike"]
    ]
