"""A predictor of random weights on disk, made by the package itself, and pipelines and processes that end."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from service_kit import BINS, HIDDEN, LAYER, Bench, SidecarProcess

from trail.policy.spec import PolicySpec
from trail.predict import artefact
from trail.predict.encoder import EncoderSize
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor
from trail.predict.refine import PAPER

VOCABULARY = 20


def _save(directory: Path, *, prompt: bool) -> Path:
    model = directory / "config.json"
    model.write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
                "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
                "vocab_size": VOCABULARY,
            }
        )
    )  # fmt: skip
    manifest = Manifest.for_model(
        describe_model(model), model_id="example/small", model_revision="abc", layer=LAYER, bins=BINS,
        training_data_sha256="0" * 64, mean_output_tokens=31.5, metrics={}, recipe={},
 decoding=PAPER,
    )  # fmt: skip
    size = EncoderSize(layers=1, hidden_size=16, heads=2, intermediate_size=16, max_tokens=16)
    predictor = PromptPredictor.untrained(VOCABULARY, BINS, size, seed=1) if prompt else None
    path = directory / "predictor"
    artefact.save(path, manifest, Probe.untrained(HIDDEN, BINS, LAYER, units=16, seed=1), predictor)
    return path


@pytest.fixture(scope="session")
def predictor_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact with a prompt predictor."""
    return _save(tmp_path_factory.mktemp("with-prompt"), prompt=True)


@pytest.fixture(scope="session")
def probe_only_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact without a prompt predictor."""
    return _save(tmp_path_factory.mktemp("probe-only"), prompt=False)


@pytest.fixture(scope="session")
def prompt_only_dir(predictor_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact that was trained without hidden states."""
    loaded = artefact.load(predictor_dir)
    path: Path = tmp_path_factory.mktemp("prompt-only") / "predictor"
    artefact.save(path, replace(loaded.manifest, layer=None), None, loaded.prompt)
    return path


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(spec: PolicySpec | None = None, **more: object) -> Bench:
        directory = tmp_path / f"pipeline{len(made)}"
        directory.mkdir()
        made.append(Bench(directory, spec, **more))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture
def run_sidecar(tmp_path: Path) -> Iterator[Callable[..., SidecarProcess]]:
    """Starts sidecars in `tmp_path/shared`; whatever still runs at the end is stopped."""
    running: list[SidecarProcess] = []

    def start(*args: str, predictor: Path | None = None) -> SidecarProcess:
        running.append(SidecarProcess(tmp_path / "shared", *args, predictor=predictor))
        return running[-1]

    yield start
    for sidecar in running:
        sidecar.end()
