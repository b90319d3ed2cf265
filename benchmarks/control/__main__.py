"""`python -m benchmarks.control`: the controller of c against the best constant c, on the whole grid."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.control.constant import Outcome, run_constants
from benchmarks.control.regret import rows, run_controlled
from benchmarks.control.settings import AZURE, Setting, azure_file, grid
from benchmarks.names import ENV_SHARED
from trail.policy.controller import LEVELS
from trail.report.stages import shown
from trail.simulation.cache import Cache
from trail.wire.files import write_json

TARGET = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every regret is within the target, 1 when one is not, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.control",
        description=f"Simulate steps of load, bursts and, with {ENV_SHARED} set, the Azure hour, with c from"
        " the controller and with each constant c; write how much worse the controller is than the best."
        " What was simulated before, by the same code, is not simulated again.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/sim"), help="directory of controller.json (%(default)s)")
    add("--requests", type=int, default=1500, help="requests of a seed, but for the Azure hour (%(default)s)")
    add("--seeds", default="101,102,103,104,105", help="comma-separated; Azure takes two (%(default)s)")
    add("--only", default="", help="only settings whose names hold this text")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    args = parser.parse_args(argv)
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {args.seeds!r}: give whole numbers, as in 101,102")
    settings = [setting for setting in grid() if args.only in setting.name]
    if not settings or args.requests < 100 or args.jobs < 1:
        parser.error("--only must match a setting, --requests be at least 100, --jobs at least 1")
    began_s = time.monotonic()
    found = [
        row
        for setting, runs in run(settings, args.requests, seeds, args.jobs, args.out / "control-runs")
        for row in rows(setting, runs)
    ]
    document = {
        "requests": args.requests,
        "seeds": seeds,
        "seconds": time.monotonic() - began_s,
        "target": TARGET,
        "within_target": sum(row["regret"] <= TARGET for row in found),
        "settings": found,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "controller.json", document)
    table = Table("setting; objective", "regret", "best c", "last c", "turns")
    for row in sorted(found, key=lambda row: -row["regret"])[:20]:
        last = " ".join(f"{c:g}" for c in row["last_c"] if c is not None)
        table.add_row(
            row["name"], f"{100 * row['regret']:+.1f} %", f"{row['best_c']:g}", last, str(max(row["turns"]))
        )
    console = Console()
    console.print(table)
    console.print(
        f"{document['within_target']} of {len(found)} within {100 * TARGET:g} %; the table shows the furthest"
        f" {min(len(found), 20)}. Written: {args.out / 'controller.json'}",
        highlight=False,
    )
    return 0 if document["within_target"] == len(found) else 1


def run(
    settings: Sequence[Setting], requests: int, seeds: Sequence[int], jobs: int, directory: Path
) -> list[tuple[Setting, list[dict[str, Outcome]]]]:
    """Outcomes of every setting, seed by seed; those that `directory` holds are not simulated again."""
    runs = [(s, seed) for s in settings for seed in (seeds[:2] if s.shape == AZURE else seeds)]
    # The Azure hour takes longest.
    first = sorted(runs, key=lambda of: of[0].shape != AZURE)
    parts: list[tuple[Callable[..., dict[str, Outcome]], tuple[Any, ...]]] = [
        *((run_constants, (s, requests, seed, LEVELS)) for s, seed in first),
        *((run_controlled, (s, requests, seed)) for s, seed in first),
    ]
    whole: dict[tuple[Setting, int], dict[str, Outcome]] = {of: {} for of in runs}
    missing = []
    for part, given in parts:
        cache = Cache(directory, part.__module__)
        key = cache.key(*given, azure_file() if given[0].shape == AZURE else None)
        found = cache.read(key)
        if found is None:
            missing.append((part, given, cache, key))
        else:
            whole[given[0], given[2]] |= {name: Outcome(**values) for name, values in found.items()}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(jobs, context) as pool,
        shown() as stages,
        stages.stage("simulating", len(missing)) as advance,
    ):
        futures = {pool.submit(part, *given): (given, cache, key) for part, given, cache, key in missing}
        for future in as_completed(futures):
            given, cache, key = futures[future]
            outcomes = future.result()
            whole[given[0], given[2]] |= outcomes
            cache.write(key, {name: asdict(outcome) for name, outcome in outcomes.items()})
            advance(1)
    return [(s, [whole[of] for of in runs if of[0] is s]) for s in settings]


if __name__ == "__main__":
    sys.exit(main())
