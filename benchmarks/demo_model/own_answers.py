"""A small model's predictor from answers sampled with transformers, without a server.

For the models that the project makes or measures itself; `trail profile` and `trail train` do the same for
any model that vLLM serves.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo_model.sampling import Sample, hidden_states, sample_answers
from trail.predict import artefact
from trail.predict.encoder import SMALL
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import Manifest
from trail.predict.training.recipes import DEFAULT, PROMPT, Recipe
from trail.report.stages import Stages
from trail.training.fitting import Corpus, fit

LIGHT = dataclasses.replace(DEFAULT, prompt=dataclasses.replace(PROMPT, encoder=SMALL))
"""For sidecars that share two cores with vLLM, its client and its API server."""


@dataclass(frozen=True)
class PredictorSpec:
    """How a predictor is made: by which recipe, from which layers, of answers of up to `max_tokens`."""

    recipe: Recipe = LIGHT
    layers: tuple[int, ...] = (2, 3)
    max_tokens: int = 640
    seed: int = 1


def sampled_corpus(
    model: Any, prompts: Sequence[tuple[int, ...]], spec: PredictorSpec, stages: Stages
) -> Corpus:
    """One answer to each of `prompts`, with its hidden states at every layer of `spec`."""
    with stages.stage("answers to train on", len(prompts)) as advance:
        samples = sample_answers(model, prompts, seed=spec.seed, max_tokens=spec.max_tokens, progress=advance)
    with stages.stage("hidden states", len(samples)) as advance:
        recorded = hidden_states(model, samples, spec.layers, max_tokens=spec.max_tokens, progress=advance)
    return Corpus(
        prompts=[sample.prompt for sample in samples],
        lengths=np.array([len(sample.output) for sample in samples]),
        censored=np.array([not sample.ended for sample in samples], dtype=np.bool_),
        layers=spec.layers,
        sequences=recorded.__getitem__,
        vocab_size=int(model.config.vocab_size),
        sha256=_hash(samples),
    )


def build_predictor(
    model: Any,
    model_dir: Path,
    out: Path,
    *,
    prompts: Sequence[tuple[int, ...]],
    spec: PredictorSpec,
    stages: Stages,
    model_id: str,
) -> Manifest:
    """Samples an answer to each of `prompts`, trains, evaluates on held-out prompts, writes the artefact."""
    corpus = sampled_corpus(model, prompts, spec, stages)
    recipe = spec.recipe.seeded(spec.seed)
    fitted = fit(corpus, recipe, spec.seed, stages)
    revision = hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()[:12]
    manifest = fitted.manifest(describe_model(model_dir), corpus, recipe, (model_id, revision))
    manifest = dataclasses.replace(
        manifest, recipe=dataclasses.asdict(dataclasses.replace(spec, recipe=recipe))
    )
    return artefact.save(out, manifest, fitted.probe, fitted.prompt.predictor if fitted.prompt else None)


def _hash(samples: Sequence[Sample]) -> str:
    """sha256 over prompts and outputs in order, so that two builds can be compared."""
    digest = hashlib.sha256()
    for sample in samples:
        for tokens in (sample.prompt, sample.output):
            digest.update(np.asarray([len(tokens), *tokens], "<u4").tobytes())
    return digest.hexdigest()
