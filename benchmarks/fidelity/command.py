"""Runs `trail bench` at several loads, fits step times to it, simulates the same, and compares."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.fidelity.compare import TIMES, compare, verdict
from benchmarks.fidelity.replay import ReplayError, engine_config, read_recorded, replay
from benchmarks.fidelity.report import print_tables, render
from benchmarks.fidelity.steps import ServerSteps, server_of, server_steps
from trail.bench.config import parse_arms, parse_load
from trail.bench.results import ResultsError, read_results
from trail.report.page import write_results
from trail.serving.launch import run_to_end
from trail.simulation.engine.steptime import COEFFICIENTS, StepModelError, write_step_model

ARMS = "fcfs,sjf,trail-prompt-c0,trail-c0,trail-c0.2,trail-c0.8,adaptive,oracle-c0"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when all holds, 1 when something does not, 2 for bad input, 130 when interrupted."""
    args = _parser().parse_args(argv)
    console = Console()
    try:
        parse_arms(args.arms)
        loads = [parse_load(part.strip()).text for part in args.loads.split(",")]
        for load in loads:
            _bench(args, load)
        document = _document(args.out, loads)
    except (ReplayError, ResultsError, StepModelError, ValueError, OSError) as e:
        print(f"benchmarks.fidelity: {e}", file=sys.stderr)
        return 2
    except RuntimeError as e:
        print(f"benchmarks.fidelity: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the loads that are left", file=sys.stderr)
        return 130
    write_results(document, args.out / "fidelity.json", args.out / "fidelity.html", render)
    print_tables(console, document)
    console.print(f"report: {args.out / 'fidelity.html'}", highlight=False)
    found = document["verdict"]
    return 0 if found["within"] == found["compared"] and found["pairs_alike"] == found["pairs"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description="Serve the demo model with trail bench at several loads, fit step times to these runs,"
        " serve the same requests with the same predictions in the simulator, and compare arm by arm. A load"
        " whose results are complete in OUT is not measured again.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/fidelity"), help="directory (%(default)s)")
    add("--loads", default="0.8x,1.0x,1.3x", help="as trail bench takes them (%(default)s)")
    add("--arms", default=ARMS, help="%(default)s")
    add("--requests", type=int, default=300, help="requests of one run (%(default)s)")
    add("--repeats", type=int, default=3, help="repeats of every arm (%(default)s)")
    add("--seed", type=int, default=0, help="of trail bench (%(default)s)")
    return parser


def _bench(args: argparse.Namespace, load: str) -> None:
    """Measure one load, unless that has been done."""
    out = args.out / load
    if (out / "results.json").is_file() and read_results(out / "results.json")["complete"]:
        return
    command = [sys.executable, "-m", "trail", "bench", "demo", "--max-tokens", "640", "--load", load]
    command += ["--arms", args.arms, "--requests", str(args.requests), "--repeats", str(args.repeats)]
    command += ["--capacity-requests", str(args.requests)]
    run_to_end([*command, "--seed", str(args.seed), "--out", str(out)])


def _document(out: Path, loads: Sequence[str]) -> dict[str, Any]:
    """Everything that is compared, from what was measured."""
    measured = {load: read_results(out / load / "results.json") for load in loads}
    steps = server_steps(measured)
    for server, found in steps.items():
        write_step_model(out / f"steps-{server}.json", found.model)
    parts = [_load(load, results, out / load, steps) for load, results in measured.items()]
    fits = {
        server: {
            "seconds": {name: getattr(found.model, name) for name in COEFFICIENTS},
            "mean_relative": found.error.mean_relative,
            "slowness": [[*key, value] for key, value in found.slowness.items()],
        }
        for server, found in steps.items()
    }
    return {"loads": parts, "steps": fits, "verdict": verdict(parts)}


def _load(
    load: str,
    results: Mapping[str, Any],
    directory: Path,
    steps: Mapping[str, ServerSteps],
) -> dict[str, Any]:
    """One load: means of both, repeat by repeat, and their comparison."""
    config = engine_config(results["config"]["vllm_args"])
    recorded = read_recorded(results, directory)
    real: dict[str, dict[str, list[float]]] = {time: {} for time in TIMES}
    simulated: dict[str, dict[str, list[float]]] = {time: {} for time in TIMES}
    for arm, figures in results["arms"].items():
        for run in figures["runs"]:
            served, _ = replay(run, config, steps[server_of(arm)].of(load, run), recorded)
            for time in TIMES:
                real[time].setdefault(arm, []).append(run[time]["mean"])
                simulated[time].setdefault(arm, []).append(float(getattr(served, time).mean()))
    return {
        "load": load,
        "rate_per_s": results["load"]["rate_per_s"],
        "requests": results["config"]["requests"],
        "repeats": results["config"]["repeats"],
        "seed": results["seed"],
        "lag_steps": recorded.lag_steps,
        "host": results["host"],
        **{time: compare(real[time], simulated[time]) for time in TIMES},
    }
