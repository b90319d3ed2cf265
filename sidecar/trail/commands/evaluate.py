"""`trail evaluate PREDICTOR`: options, and what is done with them."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from trail.report.stages import shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail evaluate`."""
    parser.description = (
        "Say how good a predictor is: against a constant, position alone, the prompt alone and the paper's"
        " own recipe trained on the same answers, and with --floor against the best that is possible at all."
    )
    add = parser.add_argument
    add("predictor", type=Path, help="directory made by `trail train`")
    add(
        "--recording",
        type=Path,
        required=True,
        help="answers to judge on, made by `trail profile`, or a file of lengths as for `trail train`",
    )
    add("--training", type=Path, required=True, help="the recording that the predictor was trained on")
    add("--model", type=Path, help="model directory, for --floor and for texts in a file of lengths")
    add("--floor", action="store_true", help="draw continuations with vLLM and give the irreducible error")
    add("--steps", type=int, default=2500, help="decode steps to draw continuations from (%(default)s)")
    add("--continuations", type=int, default=12, help="continuations of each (%(default)s)")
    add("--speed", action="store_true", help="also measure the probe's time at batches of 1 to 2048")
    add("--seed", type=int, default=0, help="of the paper's training and of --floor (%(default)s)")
    add("--out", type=Path, default=Path("evaluation"), help="directory for the results (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 2 with one sentence where the input cannot be judged."""
    from trail.bench.workload import PromptFileError
    from trail.predict.manifest import ArtefactError
    from trail.report.page import write_results
    from trail.serving.setup import SetupError
    from trail.training.evaluate.draw import DrawError
    from trail.training.evaluate.job import EvaluationJob
    from trail.training.evaluate.predictions import PREDICTIONS_FILE
    from trail.training.evaluate.report import render
    from trail.training.evaluate.table import print_arms
    from trail.training.recording import RecordingError

    if args.floor and args.model is None:
        return _refuse("--floor draws from the model: give --model DIRECTORY")
    if args.continuations < 8 or args.steps < 10:
        return _refuse("--floor needs at least 8 --continuations and 10 --steps")
    console = Console()
    job = EvaluationJob(
        predictor=args.predictor,
        recording=args.recording,
        training=args.training,
        model=args.model if args.floor else None,
        text_model=args.model,
        steps=args.steps,
        continuations=args.continuations,
        speed=args.speed,
        seed=args.seed,
        out=args.out,
        command=" ".join(["trail evaluate", *sys.argv[2:]]),
    )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with shown() as stages:
            document = job.run(stages)
    except (
        RecordingError,
        PromptFileError,
        SetupError,
        ArtefactError,
        DrawError,
        OSError,
        ValueError,
    ) as error:
        return _refuse(str(error))
    write_results(document, args.out / "evaluation.json", args.out / "report.html", render)
    print_arms(console, document)
    console.print(
        f"written: {args.out / 'evaluation.json'}, {args.out / 'report.html'} and, for `trail simulate`,"
        f" {args.out / PREDICTIONS_FILE}"
    )
    return 0


def _refuse(reason: str) -> int:
    print(f"trail evaluate: {reason}", file=sys.stderr)
    return 2
