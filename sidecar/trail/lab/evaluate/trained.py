"""Trainings of the comparison, kept as artefacts: what was interrupted goes on where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trail.lab.fitting
import trail.predict
from trail.lab.code_digest import code_digest
from trail.lab.evaluate.arms import Predictor
from trail.lab.fitting import Corpus, Fitted
from trail.predict import artefact
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import ArtefactError
from trail.predict.recipes import Recipe


@dataclass(frozen=True)
class Trained:
    """Of one model, below `directory`. Trainings by other code, or of another corpus, are never taken."""

    directory: Path
    model: Path

    def predictor(
        self, corpus: Corpus, recipe: Recipe, seed: int, train: Callable[[], Fitted]
    ) -> tuple[Predictor, dict[int, float]]:
        """What `train` gives for these, or what it gave before; and the error of every layer tried."""
        code = code_digest(Path(trail.lab.fitting.__file__), *map(Path, trail.predict.__path__))
        asked = [corpus.sha256, corpus.layers, dataclasses.asdict(recipe), seed, code]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        path = self.directory / f"{recipe.name}-{seed}-{digest[:16]}"
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
