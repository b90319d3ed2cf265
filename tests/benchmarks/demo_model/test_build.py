"""The whole build at toy size: one command makes a model, its statistics and a predictor that fits it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress
from safetensors.numpy import load_file

from benchmarks.demo_model import build, own_answers, train_model
from trail.demo.corpus import demo_prompts
from trail.predict import artefact
from trail.predict.training.probe_training import ProbeRecipe
from trail.predict.training.prompt_training import PromptRecipe
from trail.predict.training.recipes import DEFAULT
from trail.report.stages import Stages

TOY = build.BuildSpec(
    shape=train_model.ModelShape(hidden_size=64, layers=4, heads=2, kv_heads=1, intermediate_size=64),
    train=train_model.TrainSpec(steps=25, groups_per_step=3, group_documents=3, warmup_steps=5, seed=3),
    predictor=own_answers.PredictorSpec(
        recipe=replace(
            DEFAULT,
            trial=ProbeRecipe(hidden_units=16, epochs=1, batch_size=256, position=True),
            probe=ProbeRecipe(hidden_units=16, epochs=2, batch_size=256, position=True),
            prompt=PromptRecipe(epochs=1),
        ),
        max_tokens=250,
        seed=3,
    ),
    predictor_prompts=60,
    measured_prompts=20,
    repeats=2,
    seed=3,
)


def _build(out: Path, spec: build.BuildSpec) -> dict[str, object]:
    return build.build(out, spec, Stages(Progress(disable=True)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("demo") / "first"
    _build(out, TOY)
    return out


def test_the_predictor_belongs_to_the_model_and_predicts(built: Path) -> None:
    manifest = artefact.read_manifest(built / "predictor")
    artefact.check_model(manifest, built / "model")
    loaded = artefact.load(built / "predictor")
    assert loaded.probe.hidden_size == TOY.shape.hidden_size
    assert loaded.probe.layer in TOY.predictor.layers
    assert loaded.prompt is not None
    prompts = [prompt.token_ids for prompt in demo_prompts(3, seed=5)]
    np.testing.assert_allclose(loaded.prompt.predict(prompts).sum(axis=1), 1, atol=1e-5)


def test_the_kept_layer_is_the_one_with_the_smallest_trial_error(built: Path) -> None:
    manifest = artefact.read_manifest(built / "predictor")
    trial = manifest.metrics["layer_trial_mae_refined_tokens"]
    assert set(trial) == {str(layer) for layer in TOY.predictor.layers}
    assert trial[str(manifest.layer)] == min(trial.values())


def test_log_and_statistics_say_how_it_was_made(built: Path) -> None:
    log = [json.loads(line) for line in (built / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["train"]["seed"] == TOY.train.seed
    assert log[-1]["step"] == TOY.train.steps
    statistics = json.loads((built / "statistics.json").read_text())
    assert statistics["lengths"]["samples"] == TOY.measured_prompts * TOY.repeats
    assert statistics["build"]["seed"] == TOY.seed


def test_the_same_seed_makes_the_same_weights_and_another_seed_others(built: Path, tmp_path: Path) -> None:
    def weights(out: Path, name: str) -> dict[str, np.ndarray]:
        return dict(load_file(out / name))

    _build(tmp_path / "again", TOY)
    other = replace(TOY, seed=4, train=replace(TOY.train, steps=2), measured_prompts=3)
    _build(tmp_path / "other", other)
    for name in (
        "model/model.safetensors",
        "predictor/probe.safetensors",
        "predictor/prompt/model.safetensors",
    ):
        first, again = weights(built, name), weights(tmp_path / "again", name)
        assert all(np.array_equal(first[key], again[key]) for key in first)
    first, changed = (
        weights(built, "model/model.safetensors"),
        weights(tmp_path / "other", "model/model.safetensors"),
    )
    assert not np.array_equal(first["model.embed_tokens.weight"], changed["model.embed_tokens.weight"])


def test_the_command_builds_and_then_refuses_to_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    arguments = ["--out", str(out), "--steps", "6", "--prompts", "40", "--measured-prompts", "4"]
    arguments += ["--epochs", "1", "--seed", "2", "--max-tokens", "250", "--threads", "1"]
    assert build.main(arguments) == 0
    assert (out / "model" / "tokenizer.json").is_file()
    assert artefact.read_manifest(out / "predictor").recipe["seed"] == 2
    capsys.readouterr()
    assert build.main(arguments) == 2
    assert "is not empty; name a new directory" in capsys.readouterr().err
