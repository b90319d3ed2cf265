"""`trail plan`: options, and what is done with them."""

import argparse
import json
import math
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trail.report.stages import shown

if TYPE_CHECKING:
    from trail.simulation.engine.workload import Pool
    from trail.simulation.plan.service import Service

ARMS = "fcfs,sjf,trail-prompt-c0.2,trail-prompt-c0.8,oracle-c1"
LOADS = "0.3,0.5,0.6,0.7,0.8,0.85,0.9,0.95"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail plan`."""
    from trail.simulation.plan.inputs import PREDICTIONS_HELP

    parser.description = (
        "What queueing theory expects of scheduling policies at your lengths, predictions and load: mean"
        " response time by the closed form for M/G/1 beside a simulation of that queue; which c, load or"
        " number of replicas a target for the mean takes. A replica is one server that works at the"
        " engine's whole token rate, and a preemption costs nothing: docs/plan.md says where this misleads,"
        " trail simulate models the engine itself."
    )
    add = parser.add_argument
    add("--lengths", type=Path, required=True, metavar="FILE", help="output lengths: a CSV (also .gz) with a"
        " column of lengths, a trace (Azure's CSV, Mooncake's JSON lines), or results.json of trail"
        " bench")  # fmt: skip
    add("--lengths-column", metavar="NAME", help="the CSV's column, where it has no usual name")
    add("--predictions", default="exact", metavar="WHAT", help=f"{PREDICTIONS_HELP} (%(default)s)")
    add("--predictor-arm", metavar="NAME", help="the predictor of an evaluation.json (prompt-countdown)")
    speed = parser.add_argument_group("speed of a replica (one of; a results.json brings its own)")
    speed.add_argument("--tokens-per-s", type=float, help="output tokens a second with every slot taken")
    speed.add_argument(
        "--steps", metavar="MODEL", help="step model of trail fit-steps, or a preset; needs --slots"
    )
    add("--slots", type=int, help="requests that run at once (max_num_seqs): also estimates latency on them")
    demand = parser.add_mutually_exclusive_group()
    demand.add_argument("--load", type=float, help="share of the replicas' capacity that is asked for (0.9)")
    demand.add_argument("--rate", type=float, help="requests a second over all replicas, instead of --load")
    add("--replicas", type=int, default=1, help="replicas that share the requests at random (%(default)s)")
    add("--target", type=float, metavar="SECONDS", help="mean latency that must be kept")
    add("--arms", default=ARMS, help="policies, c after the name (%(default)s)")
    add("--loads", default=LOADS, help="loads to show (%(default)s)")
    add("--seed", type=int, default=0, help="of the simulation (%(default)s)")
    add("--out", type=Path, default=Path("plan"), help="directory for plan.json and plan.html (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 2 with one sentence where the input cannot be used."""
    from trail.report.page import write_results
    from trail.simulation.plan.report import render
    from trail.simulation.plan.table import print_plan

    try:
        document = _plan(args)
        args.out.mkdir(parents=True, exist_ok=True)
        write_results(document, args.out / "plan.json", args.out / "plan.html", render)
    except (OSError, ValueError) as error:
        print(f"trail plan: {error}", file=sys.stderr)
        return 2
    console = Console()
    print_plan(console, document)
    console.print(f"written: {args.out / 'plan.json'} and {args.out / 'plan.html'}", highlight=False)
    return 0


def _plan(args: argparse.Namespace) -> dict[str, Any]:
    from trail.simulation.files import read_source
    from trail.simulation.plan.inputs import predicted_law
    from trail.simulation.plan.study import Question, Study, error_of, loads_from, parse_plan_arms

    for name in ("load", "rate", "target"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name} must be a positive number, got {value:g}")
    if args.replicas < 1 or args.seed < 0:
        raise ValueError("--replicas must be at least 1 and --seed not negative")
    specs, loads = parse_plan_arms(args.arms), loads_from(args.loads)
    pool = read_source(args.lengths, lengths_column=args.lengths_column).lengths()
    lengths = pool.output_tokens.astype(float)
    law = predicted_law(args.predictions, lengths, args.lengths, args.predictor_arm)
    service = _service(args, pool)
    with shown() as stages, stages.stage("policies", len(specs)) as advance:
        study = Study(law, service, specs)
        rate = args.rate or (args.load or 0.9) * study.capacity_per_s * args.replicas
        answer = study.answer(Question(rate, args.replicas, loads, args.target, args.seed), advance)
    return {
        "format": 1,
        "command": shlex.join(["trail", "plan", *sys.argv[2:]]),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "workload": {
            "lengths": str(args.lengths),
            "requests": len(lengths),
            "mean_tokens": law.mean_size,
            "squared_cv": law.second_moment / law.mean_size**2 - 1,
            "predictions": args.predictions,
            "mae_tokens": error_of(law),
        },
        **answer,
    }


def _service(args: argparse.Namespace, pool: "Pool") -> "Service":
    from trail.simulation.engine.steptime import read_step_model
    from trail.simulation.plan.service import Service, service_of_steps

    if args.tokens_per_s is not None and args.steps is not None:
        raise ValueError("--tokens-per-s and --steps both state the speed of a replica: give one")
    if args.tokens_per_s is not None:
        return Service(args.tokens_per_s, args.slots, "--tokens-per-s")
    if args.steps is not None:
        if args.slots is None or args.slots < 1:
            raise ValueError("--steps gives the time of a step: say with --slots how many requests share it")
        return service_of_steps(read_step_model(args.steps), args.slots, pool)
    measured = _measured_rate(args.lengths)
    if measured is None:
        raise ValueError(
            "how fast is a replica? Give --tokens-per-s (output tokens a second with every slot taken;"
            " trail bench measures it as capacity), or --steps MODEL --slots N"
        )
    return Service(measured, args.slots, f"capacity measured in {args.lengths}")


def _measured_rate(path: Path) -> float | None:
    """The capacity that a results.json of trail bench holds; None for other files and for results without."""
    if path.suffix != ".json":
        return None
    capacity = json.loads(path.read_text(encoding="utf-8")).get("capacity")
    return None if capacity is None else float(capacity["tokens_per_s"])
