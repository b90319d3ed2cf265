"""Trainings of the comparison are kept, and taken again only for the same corpus and recipe."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from recording_maker import ARCHITECTURE, Truth, make_recording, settings_of, some_prompts

from benchmarks.predictors.trained import Trained
from trail.predict.training.recipes import Recipe
from trail.report.stages import shown
from trail.training.evaluate.job import paper_recipe
from trail.training.fitting import Corpus, Fitted, fit
from trail.training.recording import Recording
from trail.training.train.job import recorded_corpus

PROMPTS = some_prompts(80, seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path: Path = tmp_path_factory.mktemp("recordings") / "training"
    make_recording(path, PROMPTS, Truth(settings_of(PROMPTS, shard_requests=64), 7))
    recording = Recording.open(path)
    return recorded_corpus(recording, recording.layers)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(ARCHITECTURE))
    return Trained(tmp_path / "trained", model)


def recipe_of(seed: int) -> Recipe:
    paper = paper_recipe(seed)
    return dataclasses.replace(
        paper,
        probe=dataclasses.replace(paper.probe, epochs=1),
        trial=dataclasses.replace(paper.trial, epochs=1),
    )


def never() -> Fitted:
    raise AssertionError("trained again")


def train(corpus: Corpus, seed: int) -> Fitted:
    with shown() as stages:
        return fit(corpus, recipe_of(seed), seed, stages)


def test_what_was_trained_is_read_back_as_it_was(corpus: Corpus, trained: Trained) -> None:
    recipe = recipe_of(0)
    made, tried = trained.predictor(corpus, recipe, 0, lambda: train(corpus, 0))
    read, tried_again = trained.predictor(corpus, recipe, 0, never)
    assert set(tried) == set(corpus.layers)
    assert tried_again == tried
    assert (read.layer, read.bins, read.decoding) == (made.layer, made.bins, made.decoding)
    assert made.probe is not None
    assert read.probe is not None
    for name, weight in made.probe.weights.items():
        np.testing.assert_array_equal(read.probe.weights[name], weight)


def test_other_seeds_layers_and_corpora_are_trained_anew(corpus: Corpus, trained: Trained) -> None:
    trained.predictor(corpus, recipe_of(0), 0, lambda: train(corpus, 0))
    others = [
        (corpus, 1),
        (dataclasses.replace(corpus, layers=corpus.layers[:1]), 0),
        (dataclasses.replace(corpus, sha256="0" * 64), 0),
    ]
    for other, seed in others:
        with pytest.raises(AssertionError, match="trained again"):
            trained.predictor(other, recipe_of(seed), seed, never)


def test_a_damaged_one_is_trained_anew(corpus: Corpus, trained: Trained) -> None:
    trained.predictor(corpus, recipe_of(0), 0, lambda: train(corpus, 0))
    (kept,) = trained.directory.iterdir()
    (kept / "probe.safetensors").write_bytes(b"cut short")
    with pytest.raises(AssertionError, match="trained again"):
        trained.predictor(corpus, recipe_of(0), 0, never)
