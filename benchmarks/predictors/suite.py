"""`python -m benchmarks.predictors.suite`: the comparison of predictors on models that come with the project.

For each model: prompts drawn with the model itself, a recording to train on and one to judge on
(`trail profile`), both recipes trained with several seeds, the floor; `<out>/<model>.json` and `.html`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.names import ENV_SHARED
from benchmarks.predictors.prompts import DEMO, SPLIT_SEED, Subject, make_prompts
from benchmarks.predictors.trained import Trained
from trail.demo import demo_model_dir
from trail.predict.training.recipes import DEFAULT, Recipe
from trail.predict.training.split import held_out_prompts
from trail.report.page import write_results
from trail.report.stages import Stages, shown
from trail.serving.launch import run_to_end
from trail.simulation.cache import Cache
from trail.training.evaluate.arms import ARMS, Predictor
from trail.training.evaluate.evaluation import Pair, evaluate, held_out_set
from trail.training.evaluate.job import draw_floor, paper_recipe
from trail.training.evaluate.predictions import PREDICTIONS_FILE, write_predictions
from trail.training.evaluate.report import render
from trail.training.evaluate.speed import measure_speed
from trail.training.evaluate.table import print_arms
from trail.training.fitting import Corpus, Split, fit
from trail.training.recording import Recording
from trail.training.train.job import recorded_corpus
from trail.wire.files import write_text

STORIES = "stories260K"
TEST_SHARE = 0.65
SAMPLES = 4
"""Answers to a prompt that is trained on; one that is judged on gets one."""
EVERY = 2
"""Recorded steps of training answers; of those judged on, all."""


def record(subject: Subject, out: Path, console: Console) -> tuple[Recording, Recording]:
    """The recordings to train and to judge on; those that are complete already are taken as they are."""
    key = Cache(out, make_prompts.__module__).key(subject)
    prompts_files = {name: out / f"{name}-prompts-{key}.jsonl" for name in ("training", "test")}
    if not all(file.is_file() for file in prompts_files.values()):
        with shown() as stages:
            prompts = make_prompts(subject, out, stages)
        judged = held_out_prompts(prompts, TEST_SHARE, SPLIT_SEED)
        for name, chosen in (("training", ~judged), ("test", judged)):
            lines = (json.dumps({"prompt_token_ids": prompts[i]}) for i in np.flatnonzero(chosen))
            write_text(prompts_files[name], "\n".join(lines) + "\n")
    found = []
    for name, samples, every in (("training", SAMPLES, EVERY), ("test", 1, 1)):
        console.rule(f"{subject.name}: recording for {name}")
        command = [sys.executable, "-m", "trail", "profile", str(subject.model)]
        command += ["--prompts", str(prompts_files[name]), "--out", str(out / f"{name}-{key}")]
        command += ["--samples", str(samples), "--every", str(every), "--max-tokens", str(subject.max_tokens)]
        command += ["--dtype", "float32", "--max-num-seqs", "64"]
        run_to_end(command)
        found.append(Recording.open(out / f"{name}-{key}"))
    return found[0], found[1]


def pairs(
    corpus: Corpus, seeds: Sequence[int], trained: Trained, stages: Stages
) -> tuple[list[Pair], dict[int, float]]:
    """Both recipes with every seed, and the layers tried: the first seed's choice of layer stands for all."""
    made: list[Pair] = []
    tried: dict[int, float] = {}

    def one(recipe: Recipe, seed: int, layers: tuple[int, ...]) -> tuple[Predictor, dict[int, float]]:
        of = dataclasses.replace(corpus, layers=layers)
        return trained.predictor(of, recipe, seed, lambda: fit(of, recipe, seed, stages))

    for seed in seeds:
        first = made[0] if made else None
        recipe = DEFAULT.seeded(seed)
        default, layers = one(recipe, seed, corpus.layers if first is None else (first.default.layer,))
        tried = tried or layers
        known = None if first is None else first.paper
        paper, _ = one(paper_recipe(seed), seed, corpus.layers if known is None else (known.layer,))
        made.append(Pair(seed, default, paper, Split.of(corpus.prompts, recipe, seed)))
    return made, tried


def compare(subject: Subject, args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything for one model. Raises RuntimeError and ValueError."""
    out: Path = args.out / subject.name
    out.mkdir(parents=True, exist_ok=True)
    training, test_recording = record(subject, out, console)
    corpus = recorded_corpus(training, training.layers)
    test = recorded_corpus(test_recording, test_recording.layers)
    with shown() as stages:
        floor = None
        if args.steps:  # all that needs vLLM comes before what needs time
            floor = draw_floor(
                subject.model,
                test,
                steps=args.steps,
                continuations=args.continuations,
                seed=0,
                out=out,
                stages=stages,
            )
        made, layers = pairs(corpus, range(args.seeds), Trained(out / "trained", subject.model), stages)
        probe = made[0].default.probe
        wanted = [p.layer for pair in made for p in (pair.default, pair.paper) if p is not None]
        answers, _, left_out = held_out_set(test, wanted, set(corpus.prompts))
        with stages.stage("judging", len(made) * len(ARMS)) as advance:
            document = evaluate(
                answers,
                corpus,
                made,
                names={
                    "model": subject.name,
                    "predictor": f"recipe {DEFAULT.name}",
                    "command": "python -m benchmarks.predictors.suite",
                },
                floor=floor,
                layers=layers,
                extra={"speed": measure_speed(probe) if probe is not None else None, "step_ms": None},
                advance=advance,
            )
        document["confusion"] = write_predictions(out / PREDICTIONS_FILE, answers, made[0].default)
    document["test"].update(left_out)
    return document


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 where something failed, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="benchmarks.predictors.suite", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/eval"), help="directory (%(default)s)")
    parser.add_argument("--models", default=f"{DEMO},{STORIES}", help="which (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each recipe (%(default)s)")
    parser.add_argument(
        "--prompts", type=int, default=4000, help="of which 65 %% are judged on (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=3200, help="steps for the floor; 0: none (%(default)s)")
    parser.add_argument("--continuations", type=int, default=10, help="of each step (%(default)s)")
    args = parser.parse_args(argv)
    shared = os.environ.get(ENV_SHARED)
    known = {DEMO: Subject(DEMO, demo_model_dir(), args.prompts, 640)}
    if shared:
        model = Path(shared) / "data" / "models" / "stories260K-f32"
        known[STORIES] = Subject(STORIES, model, args.prompts, 512)
    console = Console()
    wanted = args.models.split(",")
    if unknown := [name for name in wanted if name not in (DEMO, STORIES)]:
        parser.error(f"--models {args.models}: {unknown[0]} is neither {DEMO} nor {STORIES}")
    for name in wanted:
        if name not in known:
            console.print(f"{ENV_SHARED} is not set: {name} is left out")
            continue
        try:
            document = compare(known[name], args, console)
        except (RuntimeError, ValueError) as error:
            console.print(f"{name}: {error}")
            return 1
        except KeyboardInterrupt:
            console.print("interrupted; what is complete is kept and not made again")
            return 130
        write_results(document, args.out / f"{name}.json", args.out / f"{name}.html", render)
        print_arms(console, document)
        console.print(f"written: {args.out / name}.json and {args.out / name}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
