"""Trains a small model's predictor on its own answers: choice of layer, probe, prompt predictor."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.lab.sampling import Sample, hidden_states, sample_answers
from trail.lab.stages import Stages
from trail.predict import artefact
from trail.predict.bins import equal_bins
from trail.predict.evaluation import Sequences, evaluate_sequences
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import Manifest
from trail.predict.split import held_out_prompts
from trail.predict.training import (
    ProbeRecipe,
    PromptRecipe,
    TrainedProbe,
    train_probe,
    train_prompt_predictor,
)

BINS = equal_bins(10, 512.0)


@dataclass(frozen=True)
class PredictorSpec:
    """How a predictor is trained. `layers` are tried, the best is kept.

    An answer cut at `max_tokens` or by the context is trained on with the length it was cut to, where
    `keep_cut` says that servers cut it there as well; otherwise it is left out, its length is not known.
    """

    keep_cut: bool = False
    layers: tuple[int, ...] = (2, 3)
    max_tokens: int = 640
    held_out_share: float = 0.1
    trial: ProbeRecipe = field(default_factory=lambda: ProbeRecipe(epochs=2, batch_size=512))
    probe: ProbeRecipe = field(default_factory=lambda: ProbeRecipe(batch_size=512))
    prompt: PromptRecipe = field(default_factory=PromptRecipe)
    seed: int = 1


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
    samples = _draw(model, prompts, spec, stages)
    prompts = [sample.prompt for sample in samples]
    lengths = np.array([len(sample.output) for sample in samples])
    with stages.stage("hidden states", len(samples)) as advance:
        recorded = hidden_states(model, samples, spec.layers, progress=advance)
    held_out = held_out_prompts(prompts, spec.held_out_share, spec.seed)
    if not held_out.any() or held_out.all():
        raise ValueError(f"{len(prompts)} prompts are too few to train and judge on; draw more")

    with stages.stage("prompt predictor", spec.prompt.epochs) as advance:
        prompt = train_prompt_predictor(
            prompts,
            lengths,
            held_out,
            bins=BINS,
            vocab_size=int(model.config.vocab_size),
            recipe=spec.prompt,
            progress=lambda _done, _total, _loss: advance(1),
        )
    prompt_tokens = prompt.predictor.predict([prompts[i] for i in np.flatnonzero(held_out)]) @ BINS.midpoints

    trial_mae = {}
    with stages.stage("choice of layer", len(spec.layers) * spec.trial.epochs) as advance:
        for k in spec.layers:
            trial = _fit(recorded[k], held_out, k, spec.trial, advance)
            trial_mae[k] = _judge(recorded[k], held_out, trial)["mae_refined_tokens"]
    layer = min(trial_mae, key=lambda k: trial_mae[k])
    with stages.stage(f"probe of layer {layer}", spec.probe.epochs) as advance:
        probe = _fit(recorded[layer], held_out, layer, spec.probe, advance)

    manifest = Manifest.for_model(
        describe_model(model_dir),
        model_id=model_id,
        model_revision=hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()[:12],
        layer=layer,
        bins=BINS,
        training_data_sha256=_hash(samples),
        mean_output_tokens=float(lengths[~held_out].mean()),
        metrics={
            "held_out": _judge(recorded[layer], held_out, probe, prompt_tokens),
            "probe": probe.metrics,
            "prompt": prompt.metrics,
            "layer_trial_mae_refined_tokens": {str(k): mae for k, mae in trial_mae.items()},
        },
        recipe=asdict(spec),
    )
    return artefact.save(out, manifest, probe.probe, prompt.predictor)


def _draw(
    model: Any, prompts: Sequence[tuple[int, ...]], spec: PredictorSpec, stages: Stages
) -> list[Sample]:
    with stages.stage("answers to train on", len(prompts)) as advance:
        samples = sample_answers(model, prompts, seed=spec.seed, max_tokens=spec.max_tokens, progress=advance)
    return [sample for sample in samples if sample.ended or spec.keep_cut]


def _fit(
    recorded: Sequences,
    held_out: npt.NDArray[np.bool_],
    layer: int,
    recipe: ProbeRecipe,
    advance: Callable[[int], None],
) -> TrainedProbe:
    rows_held_out = np.repeat(held_out, np.diff(recorded.offsets))
    return train_probe(
        recorded.vectors,
        recorded.remaining,
        rows_held_out,
        bins=BINS,
        layer=layer,
        recipe=recipe,
        progress=lambda _done, _total, _loss: advance(1),
    )


def _judge(
    recorded: Sequences,
    held_out: npt.NDArray[np.bool_],
    trained: TrainedProbe,
    prompt_tokens: npt.NDArray[np.floating] | None = None,
) -> dict[str, float]:
    rows_held_out = np.repeat(held_out, np.diff(recorded.offsets))
    return evaluate_sequences(
        _select(recorded, held_out),
        trained.probe,
        constant_tokens=float(np.median(recorded.remaining[~rows_held_out])),
        prompt_tokens=prompt_tokens,
    )


def _select(recorded: Sequences, chosen: npt.NDArray[np.bool_]) -> Sequences:
    rows = np.repeat(chosen, np.diff(recorded.offsets))
    lengths = recorded.lengths[chosen]
    offsets = np.concatenate([[0], np.cumsum(np.diff(recorded.offsets)[chosen])])
    return dataclasses.replace(
        recorded, vectors=recorded.vectors[rows], ages=recorded.ages[rows], offsets=offsets, lengths=lengths
    )


def _hash(samples: Sequence[Sample]) -> str:
    """sha256 over prompts and outputs in order, so that two builds can be compared."""
    digest = hashlib.sha256()
    for sample in samples:
        for tokens in (sample.prompt, sample.output):
            digest.update(np.asarray([len(tokens), *tokens], "<u4").tobytes())
    return digest.hexdigest()
