"""Trainings of the comparison, kept as artefacts: what was interrupted goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trail.predict import artefact
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import ArtefactError
from trail.predict.training.recipes import Recipe
from trail.simulation.cache import Cache
from trail.training.evaluate.arms import Predictor
from trail.training.fitting import Corpus, Fitted


@dataclass(frozen=True)
class Trained:
    """Of one model, below `directory`. Trainings by other code, or of another corpus, are never taken."""

    directory: Path
    model: Path

    def predictor(
        self, corpus: Corpus, recipe: Recipe, seed: int, train: Callable[[], Fitted]
    ) -> tuple[Predictor, dict[int, float]]:
        """What `train` gives for these, or what it gave before; and the error of every layer tried."""
        key = Cache(self.directory, Fitted.__module__).key(corpus.sha256, corpus.layers, recipe, seed)
        path = self.directory / f"{recipe.name}-{seed}-{key}"
        try:
            kept = artefact.load(path)
        except ArtefactError:  # not there, or damaged
            fitted = train()
            made = Predictor.of(fitted)
            manifest = fitted.manifest(describe_model(self.model), corpus, recipe, (self.model.name, ""))
            artefact.save(path, manifest, made.probe, made.prompt)
            return made, fitted.layers
        layers = kept.manifest.metrics["layer_trial_mae_refined_tokens"]
        return Predictor.of_artefact(kept), {int(layer): mae for layer, mae in layers.items()}
