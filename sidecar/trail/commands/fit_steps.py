"""`trail fit-steps`: how long a server's steps take, from what `trail bench` measured."""

import argparse
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from trail.simulation.engine.steptime import COEFFICIENTS, StepModel, write_step_model
from trail.simulation.fit import FitError, fit_files

_UNITS = {
    "fixed_s": "ms a step",
    "sequence_s": "ms a decoding sequence",
    "prefill_token_s": "ms a prompt token",
    "kv_token_s": "ms a KV token read",
    "arrival_s": "ms a request that comes",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail fit-steps`."""
    parser.usage = "trail fit-steps RESULTS [RESULTS ...] --out steps.json"
    parser.description = (
        "Fit the time of an engine step (a + b sequences + c prompt tokens + d KV tokens read + e requests"
        " that come) to runs of"
        " trail bench, for trail simulate --steps. Runs with preemptions are left out. Give results of"
        " several loads of the same server: with one load alone the parts cannot be told apart well."
    )
    add = parser.add_argument
    add("results", metavar="RESULTS", nargs="+", type=Path, help="results.json of trail bench")
    add(
        "--arms", metavar="ARM,...", help="fit to these arms only, for example fcfs: the server without TRAIL"
    )
    add("--name", help="what the model is called (default: the model that was served)")
    add("--out", type=Path, default=Path("steps.json"), help="where the step model goes (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Fit and write. Exit code 0, 2: bad input."""
    arms = args.arms.split(",") if args.arms else None
    try:
        model, error = fit_files(args.results, arms)
        origin = {
            "from": "trail bench",
            "results": [str(path) for path in args.results],
            "arms": arms,
            "fitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "error": asdict(error),
        }
        model = replace(model, name=args.name or model.name, origin=origin)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_step_model(args.out, model)
    except (ValueError, OSError) as e:
        print(f"trail fit-steps: {e}", file=sys.stderr)
        return 2
    _show(model, error)
    print(f"written: {args.out}")
    return 0


def _show(model: StepModel, error: FitError) -> None:
    console = Console(highlight=False)
    for name in COEFFICIENTS:
        console.print(f"{1e3 * getattr(model, name):10.6f}  {_UNITS[name]}")
    console.print(
        f"error on held-out stretches ({error.intervals} in all): {100 * error.mean_relative:.1f} % on"
        f" average, {100 * error.p90_relative:.1f} % at p90, {100 * error.bias:+.1f} % of the whole time"
    )
