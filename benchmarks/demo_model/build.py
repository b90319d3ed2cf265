"""`python -m benchmarks.demo_model.build --out DIR`: makes the demo model and its predictor from nothing.

Writes model/, predictor/, training_log.jsonl and statistics.json. The same arguments on the same
libraries and number of threads give the same files. `--model DIR` takes a model that was made before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.demo_model import own_answers, sampling, train_model
from trail.demo.corpus import demo_prompts
from trail.predict.training.recipes import Recipe
from trail.report.stages import Stages, shown


@dataclass(frozen=True)
class BuildSpec:
    """Everything a build depends on.

    The predictor is trained on `predictor_prompts` prompts; `measured_prompts` others get `repeats`
    answers each for the statistics.
    """

    shape: train_model.ModelShape = field(default_factory=train_model.ModelShape)
    train: train_model.TrainSpec = field(default_factory=train_model.TrainSpec)
    predictor: own_answers.PredictorSpec = field(default_factory=own_answers.PredictorSpec)
    predictor_prompts: int = 4500
    measured_prompts: int = 500
    repeats: int = 4
    threads: int = 1
    seed: int = 1


def build(out: Path, spec: BuildSpec, stages: Stages, made: Path | None = None) -> dict[str, object]:
    """Trains, measures and writes everything under `out`; returns what statistics.json holds.

    `made` is the `out` of an earlier build whose model is taken as it is, with its log.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name a new directory")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(spec.threads)
    model_dir = out / "model"
    if made is not None:
        shutil.copytree(made / "model", model_dir)
        shutil.copy(made / "training_log.jsonl", out)
    else:
        model = train_model.build_model(spec.shape, spec.seed)
        with (
            (out / "training_log.jsonl").open("w", encoding="utf-8") as log,
            stages.stage("language model", spec.train.steps) as advance,
        ):
            train_model.train(model, spec.train, log, progress=lambda _step, _loss: advance(1))
        train_model.save_model(model, model_dir)
    model = train_model.load_model(model_dir)

    # Another seed than the predictor's: statistics are of prompts it was not trained on.
    prompts = [prompt.token_ids for prompt in demo_prompts(spec.measured_prompts, spec.seed + 1)]
    with stages.stage("length statistics", len(prompts) * spec.repeats) as advance:
        statistics = sampling.measure(
            model,
            prompts,
            repeats=spec.repeats,
            seed=spec.seed + 1,
            max_tokens=spec.predictor.max_tokens,
            progress=advance,
        )
    asked = [prompt.token_ids for prompt in demo_prompts(spec.predictor_prompts, spec.predictor.seed)]
    manifest = own_answers.build_predictor(
        model,
        model_dir,
        out / "predictor",
        prompts=asked,
        spec=spec.predictor,
        stages=stages,
        model_id="trail-demo",
    )
    result: dict[str, object] = {
        "lengths": asdict(statistics),
        "predictor": {"layer": manifest.layer, **manifest.metrics["held_out"]},
        "build": asdict(spec),
    }
    (out / "statistics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _recipe(recipe: Recipe, epochs: int | None) -> Recipe:
    if epochs is None or recipe.prompt is None:
        return recipe
    return replace(
        recipe, probe=replace(recipe.probe, epochs=epochs), prompt=replace(recipe.prompt, epochs=epochs)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    default = BuildSpec()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_model.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to make; must be new or empty")
    parser.add_argument("--model", type=Path, help="directory of an earlier build, whose model is taken")
    parser.add_argument("--steps", type=int, default=default.train.steps, help="training steps of the model")
    parser.add_argument(
        "--prompts", type=int, default=default.predictor_prompts, help="prompts the predictor is trained on"
    )
    parser.add_argument(
        "--measured-prompts", type=int, default=default.measured_prompts, help="prompts for the statistics"
    )
    parser.add_argument(
        "--epochs", type=int, default=None, help="training epochs of probe and prompt predictor"
    )
    parser.add_argument("--max-tokens", type=int, default=default.predictor.max_tokens, help="answers' limit")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=default.threads, help="threads that torch may use")
    given = parser.parse_args(arguments)
    disable_progress_bar()  # transformers' own bars would cut through ours
    spec = replace(
        default,
        train=replace(default.train, steps=given.steps, seed=given.seed),
        predictor=replace(
            default.predictor,
            max_tokens=given.max_tokens,
            recipe=_recipe(default.predictor.recipe, given.epochs),
            seed=given.seed,
        ),
        predictor_prompts=given.prompts,
        measured_prompts=given.measured_prompts,
        threads=given.threads,
        seed=given.seed,
    )
    try:
        with shown() as stages:
            result = build(given.out, spec, stages, given.model)
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
