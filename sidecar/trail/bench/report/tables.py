"""results.json as tables: three that fit 80 columns of a terminal, two wider ones for the page."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from trail.report.figures import Styles
from trail.report.stats import STATISTICS
from trail.report.table import Cell, Table, count_text, print_table, seconds_text

Arms = Mapping[str, Any]


def print_results(console: Console, results: Mapping[str, Any]) -> None:
    """Arms as rows: times, speed-ups over stock vLLM, counts."""
    config, arms = results["config"], results["arms"]
    title = f"{config['model']}: {results['load']['text']}"
    title += f"; {config['requests']} requests, {config['repeats']} repeats, seed {results['seed']}"
    console.print(title, style="bold", highlight=False, markup=False)
    print_table(console, "seconds from arrival, mean over repeats", _times(arms))
    print_table(console, "how many times lower than fcfs, with 95 % intervals over repeats", _speedups(arms))
    print_table(
        console,
        "totals over repeats; `same output` compares answers token for token with the first arm's",
        _counts(arms),
    )
    for note in results["notes"]:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)


def times_with_intervals(arms: Arms, styles: Styles) -> Table:
    """Latency, TTFT and time per token; a time in small print is half the width of its 95 % interval."""
    columns = [(q, s, 1) for q in ("latency_s", "ttft_s") for s in STATISTICS]
    columns += [("tpot_s", s, 1000) for s in ("mean", "p99")]

    def cell(found: Mapping[str, Any] | None, statistic: str, unit: int) -> Cell:
        if not found:
            return Cell("-")
        bounds = found["ci95"][statistic]
        half = f"± {seconds_text(unit * (bounds[1] - bounds[0]) / 2)}" if bounds else ""
        return Cell(seconds_text(unit * found[statistic]), half)

    return Table(
        ["arm", *(statistic for _, statistic, _ in columns)],
        [[name, *(cell(arm[q], s, unit) for q, s, unit in columns)] for name, arm in arms.items()],
        styles,
        groups=[("latency", 4), ("time to first token", 4), ("per token, ms", 2)],
    )


def all_counts(arms: Arms, styles: Styles) -> Table:
    """What the engine did, what the predictions were worth, and what became of the requests."""
    headings = (
        "arm", "tokens/s", "requests/s", "preemptions", "recomputed\ntokens", "fallback\nsteps",
        "MAE tokens\nr / refined", "same output as\nfirst arm", "completed", "rejected/\nfailed/cut",
        "at max\ntokens", "client lag\np99, ms",
    )  # fmt: skip
    rows = []
    for name, arm in arms.items():
        engine, outcomes, lag_s = arm["engine"], arm["outcomes"], arm["client"]["loop_lag_p99_s"]
        rows.append(
            [
                name,
                f"{arm['throughput']['tokens_per_s']:,.0f}",
                f"{arm['throughput']['requests_per_s']:.2f}",
                count_text(engine["preemptions"]),
                count_text(engine["recomputed_tokens"]),
                count_text(engine["fallback_steps"]) if "fallback_steps" in engine else "-",
                _errors(arm["prediction"]),
                _same_output(arm),
                _completed(arm),
                f"{outcomes['rejected']}/{outcomes['failed']}/{outcomes['cut']}",
                f"{outcomes['stopped_by_max_tokens']}",
                "-" if lag_s is None else f"{1000 * lag_s:.1f}",
            ]
        )
    return Table(headings, rows, styles)


def _times(arms: Arms) -> Table:
    columns = [(q, s) for q in ("latency_s", "ttft_s") for s in STATISTICS]
    return Table(
        ["arm", *(f"{q}\n{s}" for q in ("latency", "TTFT") for s in STATISTICS)],
        [[name, *(seconds_text((arm[q] or {}).get(s)) for q, s in columns)] for name, arm in arms.items()],
    )


def _speedups(arms: Arms) -> Table:
    rows = []
    for name, arm in arms.items():
        if arm["speedup"]:
            latency, ttft = arm["speedup"]["latency_s"], arm["speedup"]["ttft_s"]
            means = [speedup_text(latency), speedup_text(ttft)]
            rows.append([name, *means, *(speedup_text(q, "p99", interval=False) for q in (latency, ttft))])
    return Table(["arm", "mean latency", "mean TTFT", "p99 latency", "p99 TTFT"], rows)


def _counts(arms: Arms) -> Table:
    headings = (
        "arm", "tokens/s", "pre-\nempted", "recom-\nputed", "MAE, tokens\nr / refined", "same\noutput",
        "done",
    )  # fmt: skip
    rows = [
        [
            name,
            f"{arm['throughput']['tokens_per_s']:,.0f}",
            count_text(arm["engine"]["preemptions"]),
            count_text(arm["engine"]["recomputed_tokens"]),
            _errors(arm["prediction"]),
            _same_output(arm),
            _completed(arm),
        ]
        for name, arm in arms.items()
    ]
    return Table(headings, rows)


def speedup_text(speedup: Mapping[str, Any] | None, statistic: str = "mean", *, interval: bool = True) -> str:
    """`1.83x [1.70, 1.97]`: how many times lower than under stock vLLM."""
    if speedup is None:
        return "-"
    bounds = speedup["ci95"][statistic]
    text = f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds and interval else ""
    return f"{speedup[statistic]:.2f}x{text}"


def _errors(prediction: Mapping[str, Any] | None) -> str:
    """`41.2 / 28.7`: mean absolute errors in tokens, of the initial and of the refined predictions."""
    if prediction is None:
        return "-"
    parts = [prediction["initial_mae_tokens"], prediction["refined_mae_tokens"]]
    return " / ".join("-" if p is None else f"{p:.1f}" for p in parts)


def _same_output(arm: Mapping[str, Any]) -> str:
    same = arm["outputs"] and arm["outputs"]["share_identical"]
    return "-" if same is None else f"{100 * same:.2f} %"


def _completed(arm: Mapping[str, Any]) -> str:
    return f"{arm['outcomes']['completed']}/{arm['outcomes']['sent']}"
