"""`trail shadow-report`: options, and where results go."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from trail.report.page import write_results
from trail.report.table import Table, print_table, seconds_text
from trail.simulation.shadow.estimate import estimate
from trail.simulation.shadow.report import headline, render

_HEADINGS = ("arm", "mean latency", "p99 latency", "mean TTFT", "gain")
LAG_STEPS = 2
"""Steps from a prediction's hidden state to the board, as benchmarks of the sidecar found it (p50)."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail shadow-report`."""
    parser.usage = "trail shadow-report LOG [--policies NAME,...] [options]"
    parser.description = (
        "Estimate what a policy would gain before it is switched on: the requests in a sidecar's decision log"
        " (trail sidecar --policy trail-c0.2-shadow --decision-log LOG) are served again by the simulator, in"
        " the engine's own order and under the policy, with the predictions that were made then and step"
        " times fitted to the log."
    )
    add = parser.add_argument
    add("log", metavar="LOG", type=Path, help="the file; its older parts (LOG.1, ...) are read with it")
    add("--policies", default="", metavar="NAME,...",
        help="for example trail-c0.2,adaptive (those the log was made with)")  # fmt: skip
    add("--last", type=int, default=20_000, metavar="N",
        help="newest requests of every engine that count (%(default)s)")  # fmt: skip
    add("--token-budget", type=int, default=8192, metavar="N",
        help="vLLM's --max-num-batched-tokens (%(default)s)")  # fmt: skip
    add("--prediction-lag", type=int, default=LAG_STEPS, metavar="STEPS",
        help="steps until the engine sees a new prediction (%(default)s)")  # fmt: skip
    add("--out", type=Path, default=Path("build/shadow"), metavar="DIR",
        help="directory of shadow.json and shadow.html (%(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Estimate and report. Exit code 0, 2: bad input."""
    console = Console(highlight=False)
    policies = [part.strip() for part in args.policies.split(",") if part.strip()]
    if args.last < 1:
        print(f"trail shadow-report: --last must be at least 1, got {args.last}", file=sys.stderr)
        return 2
    try:
        found = estimate(
            args.log, policies, last=args.last, token_budget=args.token_budget, lag=args.prediction_lag
        )
        args.out.mkdir(parents=True, exist_ok=True)
        write_results(found, args.out / "shadow.json", args.out / "shadow.html", render)
    except (ValueError, OSError) as error:
        print(f"trail shadow-report: {error}", file=sys.stderr)
        return 2
    columns = (("latency_s", "mean"), ("latency_s", "p99"), ("ttft_s", "mean"))
    rows = []
    for name, arm in found["arms"].items():
        times = [seconds_text(arm[q][s] if arm[q] else None) for q, s in columns]
        gain = found["gains"].get(name)
        rows.append([name, *times, f"{gain['mean_latency_s']:.2f}x" if gain else ""])
    print_table(console, headline(found), Table(_HEADINGS, rows))
    for note in found["notes"]:
        console.print(f"- {note}", soft_wrap=True)
    console.print(f"report:  {args.out / 'shadow.html'}\nresults: {args.out / 'shadow.json'}")
    return 0
