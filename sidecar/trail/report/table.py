"""The benchmark's result as a terminal table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from trail.report.stats import STATISTICS


def print_table(console: Console, results: Mapping[str, Any]) -> None:
    """Arms as rows, in three tables that fit 80 columns: times, speed-ups over stock vLLM, counts."""
    config = results["config"]
    title = f"{config['model']}: {results['load']['text']}"
    title += f"; {config['requests']} requests, {config['repeats']} repeats, seed {results['seed']}"
    console.print(title, style="bold", highlight=False, markup=False)
    arms = results["arms"]
    for table in (_times(arms), _speedups(arms), _counts(arms)):
        if table.row_count:
            console.print(table)
    for note in results["notes"]:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _times(arms: Mapping[str, Any]) -> Table:
    headings = [f"{q}{s}" for q in ("latency\n", "TTFT\n") for s in STATISTICS]
    table = _table("seconds from arrival, mean over repeats", headings)
    for name, arm in arms.items():
        cells = [seconds_text((arm[q] or {}).get(s)) for q in ("latency_s", "ttft_s") for s in STATISTICS]
        table.add_row(name, *cells)
    return table


def _speedups(arms: Mapping[str, Any]) -> Table:
    headings = ("mean latency", "mean TTFT", "p99 latency", "p99 TTFT")
    table = _table("how many times lower than fcfs, with 95 % intervals over repeats", headings)
    for name, arm in arms.items():
        if arm["speedup"]:
            means = [speedup_text(arm["speedup"][q]) for q in ("latency_s", "ttft_s")]
            tails = [speedup_text(arm["speedup"][q], "p99", interval=False) for q in ("latency_s", "ttft_s")]
            table.add_row(name, *means, *tails)
    return table


def _counts(arms: Mapping[str, Any]) -> Table:
    headings = (
        "tokens/s",
        "pre-\nempted",
        "recom-\nputed",
        "MAE, tokens\nr / refined",
        "same\noutput",
        "done",
    )
    table = _table(
        "totals over repeats; `same output` compares answers token for token with the first arm's", headings
    )
    for name, arm in arms.items():
        outputs, outcomes = arm["outputs"], arm["outcomes"]
        same = outputs and outputs["share_identical"]
        table.add_row(
            name,
            f"{arm['throughput']['tokens_per_s']:,.0f}",
            count_text(arm["engine"]["preemptions"]),
            count_text(arm["engine"]["recomputed_tokens"]),
            error_text(arm["prediction"]),
            "-" if same is None else f"{100 * same:.2f} %",
            f"{outcomes['completed']}/{outcomes['sent']}",
        )
    return table


def speedup_text(speedup: Mapping[str, Any] | None, statistic: str = "mean", *, interval: bool = True) -> str:
    """`1.83x [1.70, 1.97]`: how many times lower than under stock vLLM."""
    if speedup is None:
        return "-"
    bounds = speedup["ci95"][statistic]
    text = f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds and interval else ""
    return f"{speedup[statistic]:.2f}x{text}"


def count_text(value: int | None) -> str:
    """A count, or `?` where nobody counts."""
    return "?" if value is None else f"{value:,}"


def seconds_text(value: float | None) -> str:
    """Seconds with three significant digits."""
    if value is None:
        return "-"
    return f"{value:.{min(4, max(0, 2 - _exponent(value)))}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if abs(value) >= 1e-4 else -4


def error_text(prediction: Mapping[str, Any] | None) -> str:
    """`41.2 / 28.7`: mean absolute errors in tokens, of the initial and of the refined predictions."""
    if prediction is None:
        return "-"
    parts = [prediction["initial_mae_tokens"], prediction["refined_mae_tokens"]]
    return " / ".join("-" if p is None else f"{p:.1f}" for p in parts)
