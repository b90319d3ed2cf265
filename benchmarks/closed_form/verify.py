"""`python -m benchmarks.closed_form.verify`: closed form against simulation on the whole grid."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.closed_form.grid import EFFORT, Floats, Group, cells, groups, largest, run_replication
from benchmarks.closed_form.laws import Empirical, generated_lengths
from benchmarks.names import ENV_SHARED
from trail.report.stages import Stages, shown
from trail.simulation.files import WorkloadError, read_source
from trail.wire.files import write_json

TOLERANCE = 0.01
ROUND = 16

_grid: list[Group] = []


@dataclass(frozen=True)
class Precision:
    """The seed of all draws, and when a group is done: its widest interval, or its most replications."""

    seed: int
    half_width: float
    most: int


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 where every cell is within 1 %; 1 where one is not; 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.closed_form.verify",
        description="Compare the closed form with a simulation of its queue. Requests are simulated until"
        f" the 95 % interval of every cell is narrow enough. With {ENV_SHARED} set the empirical lengths"
        " are recorded ones.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/plan"), help="directory for closed_form.json (%(default)s)")
    add("--seed", type=int, default=0, help="of all draws (%(default)s)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    add(
        "--half-width",
        type=float,
        default=0.003,
        help="of the interval, as a share of the mean (%(default)s)",
    )
    add("--most", type=int, default=128, help="replications of a cell at most (%(default)s)")
    args = parser.parse_args(argv)
    if args.jobs < 1 or args.most < ROUND or not args.half_width > 0:
        parser.error(f"--jobs must be at least 1, --most at least {ROUND}, --half-width positive")
    try:
        name, lengths = empirical()
    except WorkloadError as error:
        parser.error(str(error))
    started = time.monotonic()
    grid = groups(name, lengths)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, _keep, (grid,)) as pool, shown() as stages:
        found = _run(grid, pool, stages, Precision(args.seed, args.half_width, args.most))
    worst = largest(found)
    document = {
        "seed": args.seed,
        "seconds": time.monotonic() - started,
        "requests": sum({_group_key(c): c["requests"] for c in found}.values()),
        "largest_deviation": abs(worst["ratio"] - 1),
        "within_tolerance": abs(worst["ratio"] - 1) <= TOLERANCE,
        "tolerance": TOLERANCE,
        "cells": found,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "closed_form.json", document)
    Console().print(
        f"{len(found)} cells; furthest apart by {100 * document['largest_deviation']:.2f} % (interval +-"
        f" {100 * worst['half_width']:.2f} %): {worst['lengths']} lengths, {worst['predictions']}"
        f" predictions, load {worst['load']:g}, c = {worst['c']:g}; written:"
        f" {args.out / 'closed_form.json'}",
        highlight=False,
    )
    return 0 if document["within_tolerance"] else 1


def _run(
    grid: list[Group], pool: ProcessPoolExecutor, stages: Stages, wanted: Precision
) -> list[dict[str, Any]]:
    """Rounds of replications for the groups whose intervals are still too wide."""
    replications: list[list[tuple[Floats, Floats]]] = [[] for _ in grid]
    found: list[list[dict[str, Any]]] = [[] for _ in grid]
    left = list(range(len(grid)))
    while left:
        done = len(replications[left[0]])
        tasks = [(g, (wanted.seed, g, k)) for g in left for k in range(done, min(done + ROUND, wanted.most))]
        with stages.stage(f"{len(left)} of {len(grid)} groups, from {done}", len(tasks)) as advance:
            for (g, _), result in zip(tasks, pool.map(_work, tasks), strict=True):
                replications[g].append(result)
                advance(1)
        for g in left:
            found[g] = cells(grid[g], replications[g])
        left = [
            g
            for g in left
            if len(replications[g]) < wanted.most
            and max(cell["half_width"] for cell in found[g]) > wanted.half_width
        ]
    return [cell for group in found for cell in group]


def _keep(grid: list[Group]) -> None:
    _grid[:] = grid


def _work(task: tuple[int, tuple[int, int, int]]) -> tuple[Floats, Floats]:
    group, seed = task
    return run_replication(_grid[group], seed, EFFORT)


def _group_key(cell: dict[str, Any]) -> tuple[str, str, float]:
    return cell["lengths"], cell["predictions"], cell["load"]


def empirical() -> tuple[str, Empirical]:
    """Recorded lengths of 13 models' answers where the optional data folder has them, else generated ones."""
    shared = os.environ.get(ENV_SHARED)
    if shared is None:
        return "generated", generated_lengths()
    file = Path(shared) / "data" / "lengths" / "castillo_lengths.csv.gz"
    return "castillo", Empirical(read_source(file).lengths().output_tokens.astype(np.float64))


if __name__ == "__main__":
    sys.exit(main())
