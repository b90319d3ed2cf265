"""`python -m benchmarks.policies`: the grid of all policies (`make sim`, `make sim-quick`)."""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.names import ENV_SHARED
from benchmarks.policies.judge import OURS, checks, frontier, losses, paper_regime, setting_row
from benchmarks.policies.report import render
from benchmarks.policies.settings import ARMS, KNOB, Case, grid, shared
from trail.bench.config import Arm, Load, parse_arms
from trail.report.page import write_results
from trail.report.table import Table, print_table
from trail.simulation.sweep import jobs, run_jobs

_INTERRUPTED = 130
_REPORTED, _TUNING = "101,102,103,104,105", "41,42"
_REQUESTS, _QUICK_REQUESTS = 3000, 300


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: written, whatever the targets say; 2: bad input; 130: interrupted."""
    args, problem = _arguments(argv)
    if problem:
        print(f"benchmarks.policies: {problem}", file=sys.stderr)
        return 2
    cases = grid(quick=args.quick, only=args.only)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    console = Console()
    if not args.quick and shared() is None:
        console.print(
            f"{ENV_SHARED} names no data: generated requests stand in for the traces", highlight=False
        )
    began_s = time.monotonic()
    rows, meta = [], {}
    try:
        for case, found in _run(console, cases, args, seeds):
            meta[case.name] = found.pop("meta")
            rows += found["rows"]
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    document = {
        "seeds": seeds,
        "requests": args.requests,
        "tuning": args.tuning,
        "seconds": round(time.monotonic() - began_s, 1),
        "cases": meta,
        "settings": rows,
        "targets": [{**asdict(check), "reached": check.reached} for check in checks(rows)],
        "frontier": frontier(rows),
        "paper_regime": paper_regime(rows),
        "losses": losses(rows),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_results(document, args.out / "policies.json", args.out / "policies.html", render)
    _show(console, document)
    console.print(
        f"report:  {args.out / 'policies.html'}\nresults: {args.out / 'policies.json'}", highlight=False
    )
    return 0


def _arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, str]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policies",
        description="Simulate every policy on a fixed grid of requests, loads, memory sizes and devices;"
        " write policies.json and policies.html. What was interrupted goes on where it stopped.",
    )
    # fmt: off
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/sim"), help="where results go (%(default)s)")
    add("--quick", action="store_true", help="two small cases of generated requests")
    add("--tuning", action="store_true",
        help="the requests and seeds that parameters are chosen on, instead of those that are reported")
    add("--arms", help="instead of the grid's, for tuning; fcfs, fcfs-reserve16 and adaptive always run")
    add("--only", default="", help="only settings whose names hold this text")
    add("--seeds", help=f"comma-separated ({_REPORTED}; with --tuning {_TUNING})")
    add("--requests", type=int,
        help=f"requests of a run, twice as many beyond capacity ({_REQUESTS}; --quick: {_QUICK_REQUESTS})")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    # fmt: on
    args = parser.parse_args(argv)
    args.seeds = args.seeds or (_TUNING if args.tuning else _REPORTED[:7] if args.quick else _REPORTED)
    args.requests = args.requests or (_QUICK_REQUESTS if args.quick else _REQUESTS)
    if not all(seed.strip().isdigit() for seed in args.seeds.split(",")):
        return args, f"--seeds {args.seeds!r}: give whole numbers, as in 101,102"
    if not grid(quick=args.quick, only=args.only):
        return args, f"--only {args.only!r} is in no setting's name; for example: --only KV-poor"
    if args.requests < 100 or args.jobs < 1:
        return args, "--requests must be at least 100 and --jobs at least 1"
    try:
        args.arms = parse_arms(f"fcfs,fcfs-reserve16,adaptive,{args.arms}") if args.arms else None
    except ValueError as e:
        return args, str(e)
    return args, ""


def _arms(case: Case, load: float, chosen: tuple[Arm, ...] | None) -> tuple[Arm, ...]:
    return chosen or parse_arms(",".join(ARMS + KNOB if case.peak(load) else ARMS))


def _run(
    console: Console, cases: Sequence[Case], args: argparse.Namespace, seeds: Sequence[int]
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Every case, as it is complete."""
    columns = (TextColumn("{task.description:<60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    total = sum(len(_arms(case, load, args.arms)) * len(seeds) for case in cases for load in case.loads)
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("", total=total)
        for case in cases:
            bars.update(bar, description=case.name)
            capacity = case.setting(args.requests, tuning=args.tuning).capacity()
            rows, predicted = [], None
            for times in case.loads:
                load, arms = Load(times_capacity=times), _arms(case, times, args.arms)
                setting = case.setting(case.requests(args.requests, times), tuning=args.tuning)
                todo = jobs(arms, [load], seeds, capacity)
                records = []
                for _, record in run_jobs(setting, todo, directory=args.out / "runs", processes=args.jobs):
                    records.append(record)
                    bars.advance(bar)
                predicted = predicted or next(r["prediction"] for r in records if r["prediction"])
                rows.append(setting_row(case, load, arms, records))
            meta = {
                "requests_per_s": capacity.requests_per_s,
                "predictor": setting.predictor.text,
                "prediction": predicted,
                "source": setting.source.name,
            }
            yield case, {"rows": rows, "meta": meta}


def _show(console: Console, document: dict[str, Any]) -> None:
    keys = ("mean_ratio", "ttft_ratio", "p99_ratio", "mean_to_reserved", "p99_to_reserved")
    own = [(row["name"], row["arms"][OURS]) for row in document["settings"]]
    rows = [[name, *(f"{entry[key]:.2f}" if key in entry else "" for key in keys)] for name, entry in own]
    headings = ("setting", "mean", "TTFT", "p99", "mean to\nreserve16", "p99 to\nreserve16")
    print_table(console, "ratios to stock FCFS", Table(headings, rows))
    for check in document["targets"]:
        console.print(
            f"{check['name']}: at most {check['asked']:.2f}, reached in {check['reached_in']} of"
            f" {check['settings']}, worst {check['worst']:.2f} ({check['where']})",
            highlight=False,
        )


if __name__ == "__main__":
    sys.exit(main())
