"""Times a probe of random weights against this machine's matrix product; writes `probe-speed.json`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from trail.predict.bins import geometric_bins
from trail.predict.first_layer import ARITHMETICS
from trail.predict.probe import FASTEST, Probe
from trail.report.host import host, versions
from trail.report.stages import shown
from trail.report.table import Table, print_table
from trail.training.evaluate.speed import BATCHES, measure_speed, training_rows_per_s
from trail.wire.files import write_json

_ROUNDS = 7


def show(console: Console, threads: int, points: Sequence[dict[str, Any]]) -> None:
    """One line a batch size."""
    headings = ("batch", "arithmetic", "µs a batch", "µs a sample", "of float32 product", "of bf16 product")
    rows = [
        [
            f"{point['batch']:,}",
            point["arithmetic"],
            f"{point['us_per_sample'] * point['batch']:,.0f}",
            f"{point['us_per_sample']:.2f}",
            f"{100 * point['of_matmul_float32']:.0f} %",
            f"{100 * point['of_matmul_bfloat16']:.0f} %",
        ]
        for point in points
    ]
    title = f"the whole prediction, {threads} thread{'s' if threads > 1 else ''}"
    print_table(console, title, Table(headings, rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, 2 where the arithmetic asked for cannot be had."""
    parser = argparse.ArgumentParser(prog="benchmarks.predictors.probe_speed", description=__doc__)
    parser.add_argument("--hidden", type=_positive, default=4096, help="hidden size (%(default)s)")
    parser.add_argument("--bins", type=_positive, default=24, help="bins (%(default)s)")
    parser.add_argument("--threads", type=_positive, nargs="+", default=[1, 2], help="of torch (1 and 2)")
    parser.add_argument("--batches", type=_positive, nargs="+", default=list(BATCHES), help="rows at a time")
    parser.add_argument(
        "--arithmetic", choices=(FASTEST, *ARITHMETICS), default=FASTEST, help="(%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/eval/probe-speed.json"), help="file (%(default)s)"
    )
    args = parser.parse_args(argv)
    probe = Probe.untrained(args.hidden, geometric_bins(args.bins, 8 * args.bins + 512), 0, position=True)
    found: dict[str, list[dict[str, Any]]] = {}
    trained: dict[str, float] = {}
    with shown() as stages, stages.stage("speed", len(args.threads)) as advance:
        for threads in args.threads:
            torch.set_num_threads(threads)
            try:
                found[str(threads)] = measure_speed(probe, args.batches, args.arithmetic, _ROUNDS)
            except RuntimeError as error:
                parser.error(f"--arithmetic {args.arithmetic} --hidden {args.hidden}: {error}")
            trained[str(threads)] = training_rows_per_s(probe)
            advance(1)
    console = Console()
    for threads in args.threads:
        show(console, threads, found[str(threads)])
        console.print(f"training: {trained[str(threads)]:,.0f} rows a second")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"hidden": args.hidden, "host": host(), "versions": versions(), "threads": found}
    write_json(args.out, {**document, "training_rows_per_s": trained})
    console.print(f"written: {args.out}")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
