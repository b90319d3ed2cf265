"""`python -m trail.lab.demo.build --out DIR`: makes the demo model and its predictor from nothing.

Writes model/, predictor/, training_log.jsonl and statistics.json. The same arguments on the same
libraries and number of threads give the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from trail.lab import fitting, sampling
from trail.lab.demo import train_model
from trail.lab.demo.corpus import demo_prompts
from trail.lab.stages import Stages, shown


@dataclass(frozen=True)
class BuildSpec:
    """Everything a build depends on.

    The predictor is trained on `predictor_prompts` prompts; `measured_prompts` others get `repeats`
    answers each for the statistics.
    """

    shape: train_model.ModelShape = field(default_factory=train_model.ModelShape)
    train: train_model.TrainSpec = field(default_factory=train_model.TrainSpec)
    predictor: fitting.PredictorSpec = field(default_factory=fitting.PredictorSpec)
    predictor_prompts: int = 4500
    measured_prompts: int = 500
    repeats: int = 4
    threads: int = 1
    seed: int = 1


def build(out: Path, spec: BuildSpec, stages: Stages) -> dict[str, object]:
    """Trains, measures and writes everything under `out`; returns what statistics.json holds."""
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name a new directory")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(spec.threads)
    model = train_model.build_model(spec.shape, spec.seed)
    with (
        (out / "training_log.jsonl").open("w", encoding="utf-8") as log,
        stages.stage("language model", spec.train.steps) as advance,
    ):
        train_model.train(model, spec.train, log, progress=lambda _step, _loss: advance(1))
    model_dir = out / "model"
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
    manifest = fitting.build_predictor(
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    default = BuildSpec()
    parser = argparse.ArgumentParser(prog="python -m trail.lab.demo.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to make; must be new or empty")
    parser.add_argument("--steps", type=int, default=default.train.steps, help="training steps of the model")
    parser.add_argument(
        "--prompts", type=int, default=default.predictor_prompts, help="prompts the predictor is trained on"
    )
    parser.add_argument(
        "--measured-prompts", type=int, default=default.measured_prompts, help="prompts for the statistics"
    )
    parser.add_argument(
        "--epochs", type=int, default=default.predictor.probe.epochs, help="training epochs of the probe"
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
            probe=replace(default.predictor.probe, epochs=given.epochs, seed=given.seed),
            trial=replace(default.predictor.trial, seed=given.seed),
            prompt=replace(default.predictor.prompt, seed=given.seed),
            seed=given.seed,
        ),
        predictor_prompts=given.prompts,
        measured_prompts=given.measured_prompts,
        threads=given.threads,
        seed=given.seed,
    )
    try:
        with shown() as stages:
            result = build(given.out, spec, stages)
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
