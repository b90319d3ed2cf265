"""A small model directory and a small artefact of random weights, made by the package itself."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trail.predict import artefact
from trail.predict.bins import Bins, equal_bins
from trail.predict.encoder import EncoderSize
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor
from trail.predict.refine import PAPER

HIDDEN_SIZE = 8
VOCAB_SIZE = 20
LAYER = 2

MODEL_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB_SIZE,
    "transformers_version": "5.0.0",
}


ModelMaker = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> ModelMaker:
    """Makes a model directory with a config and two tensors; `changes` replace config fields."""

    def make(name: str, *, seed: int = 0, **changes: object) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps({**MODEL_CONFIG, **changes}))
        rng = np.random.default_rng(seed)
        tensors = {
            tensor: rng.normal(size=(VOCAB_SIZE, HIDDEN_SIZE)).astype(np.float32) for tensor in ("a", "b")
        }
        save_file(tensors, str(directory / "model.safetensors"))
        return directory

    return make


@pytest.fixture
def bins() -> Bins:
    return equal_bins(4, 64.0)


@pytest.fixture
def model_dir(make_model: ModelMaker) -> Path:
    return make_model("model")


@pytest.fixture
def manifest(model_dir: Path, bins: Bins) -> Manifest:
    return Manifest.for_model(
        describe_model(model_dir),
        model_id="example/small",
        model_revision="abc123",
        layer=LAYER,
        bins=bins,
        training_data_sha256="0" * 64,
        mean_output_tokens=31.5,
        decoding=PAPER,
        metrics={"probe": {"mae_tokens": 7.25}},
        recipe={"epochs": 3},
    )


@pytest.fixture
def probe(bins: Bins) -> Probe:
    return Probe.untrained(HIDDEN_SIZE, bins, LAYER, units=16, seed=1)


@pytest.fixture
def prompt_predictor(bins: Bins) -> PromptPredictor:
    size = EncoderSize(layers=1, hidden_size=16, heads=2, intermediate_size=16, max_tokens=8)
    return PromptPredictor.untrained(VOCAB_SIZE, bins, size, seed=1)


@pytest.fixture
def saved(tmp_path: Path, manifest: Manifest, probe: Probe, prompt_predictor: PromptPredictor) -> Path:
    """Path of a complete artefact."""
    path = tmp_path / "predictor"
    artefact.save(path, manifest, probe, prompt_predictor)
    return path
