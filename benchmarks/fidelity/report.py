"""The comparison as terminal tables and as one HTML page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from benchmarks.fidelity.compare import TIMES, TOLERANCE
from trail.report.figures import Styles
from trail.report.page import Facts, Soft, page, section
from trail.report.palette import arm_styles
from trail.report.table import Cell, Table, print_table, seconds_text

Load = Mapping[str, Any]

_COLUMNS = ("vLLM", "simulated", "ratio")
NAMES = {"latency_s": "mean latency", "ttft_s": "mean TTFT"}
_WORKED_OUT = (
    "Every run of trail bench was served again by the simulator: the requests that arrived, the lengths that"
    " came, the predictions that the sidecar had made at the age at which it made them. Step times were"
    " fitted as trail fit-steps does to the runs without preemption of all loads, of stock vLLM for fcfs and"
    " of vLLM with TRAIL for the others; the machine is as slow in each run as the times between that run's"
    " own tokens say (a run with preemptions: as the others of its repeat). Small print under vLLM's means"
    " is their 95 % interval over repeats, under ratios those of each repeat. A ratio that is neither within"
    " 10 % nor in the interval is marked."
)


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
    first = document["loads"][0]
    arms = dict.fromkeys(arm for load in document["loads"] for arm in load[TIMES[0]]["arms"])
    styles = arm_styles(list(arms))
    loads = [
        section(
            f"Load {load['load']}",
            Soft(
                f"{load['rate_per_s']:.1f} requests/s, {load['requests']} a run, {load['repeats']} repeats;"
                f" predictions reach the board {load['lag_steps']} steps after their hidden states, or their"
                " request, came"
            ),
            _table(load, styles),
            *(Soft(_pairs(NAMES[time], load[time]["pairs"])) for time in TIMES),
        )
        for load in document["loads"]
    ]
    return page(
        title="TRAIL: the simulator against vLLM",
        headline=headline(document),
        lead=[
            "demo model",
            f"seed {first['seed']}",
            f"{first['host']['processor']}, {first['host']['cpus']} cores",
        ],
        styles=styles.values(),
        sections=[*loads, section("How this was worked out", _WORKED_OUT, Facts(_fits(document["steps"])))],
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


def _fits(steps: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for server, fit in steps.items():
        seconds = ", ".join(f"{name} {value:.3g}" for name, value in fit["seconds"].items())
        off = f"{100 * fit['mean_relative']:.1f} % off on held-out stretches"
        found.append((f"Step times, {server}", f"{seconds}; {off}"))
    return found
