"""Trains a predictor from recorded answers: choice of layer, probe, filter, prompt predictor.

Answers of which only lengths are known give a prompt predictor alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.predict.bins import Bins
from trail.predict.fingerprint import ModelDescription
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.refine import Decoding, Refiner
from trail.predict.training.decoding import fit_decoding
from trail.predict.training.evaluation import Sequences, evaluate_sequences
from trail.predict.training.probe_training import predict_rows, train_probe
from trail.predict.training.prompt_training import TrainedPromptPredictor, train_prompt_predictor
from trail.predict.training.recipes import Recipe
from trail.predict.training.split import held_out_prompts
from trail.report.stages import Stages

_VALIDATION_SALT = 7919
"""Added to the seed of the split, so that validation prompts are drawn apart from the held-out ones."""
_STEPS_WITHOUT_VECTORS = 1_000_000


@dataclass(frozen=True)
class Corpus:
    """Answers to train on, one entry a request; `sequences` gives their hidden states at a layer.

    Without `layers` there are none, and any layer gives `Sequences.without_vectors`. `lengths` int [n] are
    whole output lengths in tokens, `censored` bool [n] marks answers that were cut.
    """

    prompts: Sequence[tuple[int, ...]]
    lengths: npt.NDArray[np.integer]
    censored: npt.NDArray[np.bool_]
    layers: tuple[int, ...]
    sequences: Callable[[int], Sequences]
    vocab_size: int
    sha256: str
    model_tokenizer: Path | None = None
    """The model's `tokenizer.json`, for an encoder that reads text."""

    @classmethod
    def of_lengths(
        cls,
        prompts: Sequence[tuple[int, ...]],
        lengths: npt.NDArray[np.integer],
        censored: npt.NDArray[np.bool_],
        *,
        vocab_size: int,
        sha256: str,
    ) -> Corpus:
        """Answers without hidden states, with about a million of their steps at most."""
        every = 1 + int(lengths.sum()) // _STEPS_WITHOUT_VECTORS
        prompt_tokens = np.array([len(prompt) for prompt in prompts], dtype=np.int64)

        def sequences(_layer: int) -> Sequences:
            return Sequences.without_vectors(lengths, prompt_tokens, every)

        return cls(prompts, lengths, censored, (), sequences, vocab_size, sha256)

    def chosen(self, mask: npt.NDArray[np.bool_]) -> Corpus:
        """The requests where `mask` bool [n] is set."""
        return dataclasses.replace(
            self,
            prompts=[self.prompts[i] for i in np.flatnonzero(mask)],
            lengths=self.lengths[mask],
            censored=self.censored[mask],
            sequences=lambda layer: select(self.sequences(layer), mask),
        )


@dataclass(frozen=True)
class Split:
    """Requests that are judged on, and those that stop the training early, bool [n] each; by prompt."""

    held_out: npt.NDArray[np.bool_]
    validation: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, prompts: Sequence[tuple[int, ...]], recipe: Recipe, seed: int) -> Split:
        """Raises ValueError where a part that is needed would be empty."""
        held_out = held_out_prompts(prompts, recipe.held_out, seed)
        validation = held_out_prompts(prompts, recipe.validation, seed + _VALIDATION_SALT) & ~held_out
        for part, needed in (
            (held_out, recipe.held_out > 0),
            (validation, recipe.validation > 0),
            (~held_out & ~validation, True),
        ):
            if needed and not part.any():
                raise ValueError(
                    f"{len(set(prompts))} prompts are too few to train and judge on; record more"
                )
        return cls(held_out, validation)


@dataclass(frozen=True)
class Fitted:
    """A trained predictor; `layers` has the trial's error of every layer tried. `probe` is None where there
    were no hidden states."""

    probe: Probe | None
    decoding: Decoding
    prompt: TrainedPromptPredictor | None
    bins: Bins
    layers: dict[int, float]
    metrics: dict[str, Any]
    mean_output_tokens: float

    def manifest(
        self, model: ModelDescription, corpus: Corpus, recipe: Recipe, names: tuple[str, str]
    ) -> Manifest:
        """What `trail.json` says; `names` are the model's id and revision."""
        return Manifest.for_model(
            model,
            model_id=names[0],
            model_revision=names[1],
            layer=None if self.probe is None else self.probe.layer,
            bins=self.bins,
            training_data_sha256=corpus.sha256,
            mean_output_tokens=self.mean_output_tokens,
            decoding=self.decoding,
            metrics=self.metrics,
            recipe=dataclasses.asdict(recipe),
        )


def fit(corpus: Corpus, recipe: Recipe, split_seed: int, stages: Stages, device: str = "cpu") -> Fitted:
    """Train on `corpus` by `recipe`. The layer whose trial has the least error on validation prompts is kept.

    Without layers the prompt predictor is trained alone, with the recipe's filter as it stands. Raises
    ValueError where there is too little to train on.
    """
    if recipe.cut == "left-out":
        corpus = corpus.chosen(~corpus.censored)
    elif recipe.cut == "whole":
        corpus = dataclasses.replace(corpus, censored=np.zeros(len(corpus.lengths), dtype=np.bool_))
    if not len(corpus.lengths):
        raise ValueError("there is no answer to train on")
    split = Split.of(corpus.prompts, recipe, split_seed)
    if not (split.validation & ~corpus.censored).any():
        raise ValueError(
            "no answer to a validation prompt ended by itself; record more prompts, or with a larger limit of"
            " tokens"
        )
    bins = recipe.make_bins(float(corpus.lengths.max()), cut=bool(corpus.censored.any()))
    prompt = _fit_prompt(corpus, split, bins, recipe, stages)
    if not corpus.layers and prompt is None:
        raise ValueError("without hidden states there is nothing to train but a prompt predictor")
    trials: dict[int, float] = {}
    if len(corpus.layers) > 1:
        with stages.stage("choice of layer", len(corpus.layers) * recipe.trial.epochs) as advance:
            for layer in corpus.layers:
                trials[layer] = _Layer(corpus, split, bins, layer).trial(recipe, device, advance)
    layer = min(trials, key=lambda k: trials[k]) if trials else (*corpus.layers, 0)[0]
    chosen = _Layer(corpus, split, bins, layer)
    probe: Probe | None = None
    probe_metrics: dict[str, float] = {}
    decoding = recipe.decoding
    if corpus.layers:
        with stages.stage(f"probe of layer {layer}", recipe.probe.epochs) as advance:
            probe, probe_metrics = chosen.train(recipe, device, advance)
        decoding = chosen.decoding(probe, recipe)
    constant = float(np.median(chosen.sequences.remaining[chosen.sequences.per_row(chosen.training)]))
    metrics: dict[str, Any] = {
        "held_out": chosen.judge(probe, decoding, constant, prompt),
        "probe": probe_metrics,
        "layer_trial_mae_refined_tokens": {str(k): mae for k, mae in trials.items()},
    }
    if prompt is not None:
        metrics["prompt"] = prompt.metrics
    mean = float(corpus.lengths[chosen.training].mean())
    return Fitted(probe, decoding, prompt, bins, trials, metrics, mean)


class _Layer:
    """The recorded hidden states of one layer, and what is trained on and judged by them."""

    def __init__(self, corpus: Corpus, split: Split, bins: Bins, layer: int) -> None:
        self.sequences = dataclasses.replace(corpus.sequences(layer), censored=corpus.censored)
        self.training = ~split.held_out & ~split.validation
        self._corpus, self._split, self._bins, self._layer = corpus, split, bins, layer

    def train(
        self, recipe: Recipe, device: str, advance: Callable[[int], None], *, trial: bool = False
    ) -> tuple[Probe, dict[str, float]]:
        of = recipe.trial if trial else recipe.probe
        trained = train_probe(
            self.sequences.rows(),
            self.sequences.per_row(self._split.held_out),
            validation=self.sequences.per_row(self._split.validation),
            bins=self._bins,
            layer=self._layer,
            recipe=of,
            device=device,
            progress=lambda _done, _total, _loss: advance(1),
        )
        return trained.probe, trained.metrics

    def trial(self, recipe: Recipe, device: str, advance: Callable[[int], None]) -> float:
        """Mean absolute error of a short training on the validation prompts."""
        probe, _ = self.train(recipe, device, advance, trial=True)
        judged = select(self.sequences, self._split.validation & ~self._corpus.censored)
        return evaluate_sequences(judged, probe, constant_tokens=0.0, decoding=recipe.decoding)[
            "mae_refined_tokens"
        ]

    def decoding(self, probe: Probe, recipe: Recipe) -> Decoding:
        if not recipe.fit_decoding:
            return recipe.decoding
        validation = select(self.sequences, self._split.validation)
        return fit_decoding(validation, predict_rows(probe, validation.rows()), self._bins, recipe.decoding)

    def judge(
        self, probe: Probe | None, decoding: Decoding, constant: float, prompt: TrainedPromptPredictor | None
    ) -> dict[str, float]:
        """Errors on held-out answers that ended by themselves."""
        judged = self._split.held_out & ~self._corpus.censored
        if not judged.any():
            return {"requests": 0.0}
        tokens = None
        if prompt is not None:
            p = prompt.predictor.predict([self._corpus.prompts[i] for i in np.flatnonzero(judged)])
            tokens = Refiner(self._bins, decoding).point(p)
        return evaluate_sequences(
            select(self.sequences, judged),
            probe,
            constant_tokens=constant,
            decoding=decoding,
            prompt_tokens=tokens,
        )


def select(sequences: Sequences, chosen: npt.NDArray[np.bool_]) -> Sequences:
    """The requests where `chosen` bool [n] is set; their vectors are copied."""
    rows = sequences.per_row(chosen)
    return Sequences(
        vectors=sequences.vectors[np.flatnonzero(rows)],
        ages=sequences.ages[rows],
        offsets=np.concatenate([[0], np.cumsum(np.diff(sequences.offsets)[chosen])]),
        lengths=sequences.lengths[chosen],
        prompt_tokens=sequences.prompt_tokens[chosen],
        censored=None if sequences.censored is None else sequences.censored[chosen],
        limits=None if sequences.limits is None else sequences.limits[chosen],
    )


def _fit_prompt(
    corpus: Corpus, split: Split, bins: Bins, recipe: Recipe, stages: Stages
) -> TrainedPromptPredictor | None:
    if recipe.prompt is None:
        return None
    with stages.stage("prompt predictor", recipe.prompt.epochs) as advance:
        return train_prompt_predictor(
            corpus.prompts,
            corpus.lengths,
            split.held_out,
            bins=bins,
            vocab_size=corpus.vocab_size,
            model_tokenizer=corpus.model_tokenizer,
            recipe=recipe.prompt,
            censored=corpus.censored,
            validation=split.validation,
            progress=lambda _done, _total, _loss: advance(1),
        )
