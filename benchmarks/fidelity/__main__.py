"""`python -m benchmarks.fidelity`: `trail bench` at several loads, and the same requests simulated."""

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
from trail.simulation.cache import Cache
from trail.simulation.engine.steptime import COEFFICIENTS, StepModelError, write_step_model

ARMS = "fcfs,sjf,trail-prompt-c0,trail-c0,trail-c0.2,trail-c0.8,adaptive,oracle-c0"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when all holds, 1 when something does not, 2 for bad input, 130 when interrupted."""
    args = parser().parse_args(argv)
    console = Console()
    try:
        parse_arms(args.arms)
        loads = [parse_load(part.strip()).text for part in args.loads.split(",")]
        for load in loads:
            _bench(args, load)
        document = _document(args.out, {load: measured(args, load) for load in loads})
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


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description="Serve the demo model with trail bench at several loads, fit step times to these runs,"
        " serve the same requests with the same predictions in the simulator, and compare arm by arm. A load"
        " whose results are complete in OUT, by the same code, is not measured again.",
    )
    add = made.add_argument
    add("--out", type=Path, default=Path("build/fidelity"), help="directory (%(default)s)")
    add("--loads", default="0.8x,1.0x,1.3x", help="as trail bench takes them (%(default)s)")
    add("--arms", default=ARMS, help="%(default)s")
    add("--requests", type=int, default=300, help="requests of one run (%(default)s)")
    add("--repeats", type=int, default=3, help="repeats of every arm (%(default)s)")
    add("--seed", type=int, default=0, help="of trail bench (%(default)s)")
    return made


def measured(args: argparse.Namespace, load: str) -> Path:
    """The directory of what `trail bench` finds at one load, named by its options and by the code it runs."""
    served = Cache(args.out, "trail.bench.runner", "trail.engine.start.plugin", "trail.commands.sidecar")
    return Path(args.out / f"{load}-{served.key(_options(args, load))}")


def _options(args: argparse.Namespace, load: str) -> list[str]:
    options = ["demo", "--max-tokens", "640", "--load", load, "--arms", args.arms]
    options += ["--requests", str(args.requests), "--repeats", str(args.repeats)]
    return [*options, "--capacity-requests", str(args.requests), "--seed", str(args.seed)]


def _bench(args: argparse.Namespace, load: str) -> None:
    """Measure one load, unless that has been done."""
    out = measured(args, load)
    if (out / "results.json").is_file() and read_results(out / "results.json")["complete"]:
        return
    run_to_end([sys.executable, "-m", "trail", "bench", *_options(args, load), "--out", str(out)])


def _document(out: Path, directories: Mapping[str, Path]) -> dict[str, Any]:
    """Everything that is compared, from what was measured at each load."""
    found_at = {load: read_results(path / "results.json") for load, path in directories.items()}
    steps = server_steps(found_at)
    for server, found in steps.items():
        write_step_model(out / f"steps-{server}.json", found.model)
    parts = [_load(load, results, directories[load], steps) for load, results in found_at.items()]
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


if __name__ == "__main__":
    sys.exit(main())
