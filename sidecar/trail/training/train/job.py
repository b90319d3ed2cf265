"""A recording, or a file of lengths, as training data, and one training of it into an artefact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trail.predict import artefact
from trail.predict.fingerprint import ModelDescription, describe_model
from trail.predict.manifest import Manifest
from trail.predict.training.recipes import Recipe
from trail.report.stages import Stages
from trail.training.fitting import Corpus, fit
from trail.training.recording import Recording


@dataclass(frozen=True)
class ServedModel:
    """The model whose answers were recorded: its name, which weights they were, and its shape."""

    model_id: str
    revision: str
    description: ModelDescription

    @classmethod
    def of_recording(cls, recording: Recording) -> ServedModel:
        return cls(recording.model_id, recording.model_revision, recording.model)

    @classmethod
    def of_directory(cls, path: Path) -> ServedModel:
        """The Hugging Face model in the directory `path`. Raises ModelError."""
        description = describe_model(path)
        return cls(str(path), description.weights_fingerprint[:12], description)


def recorded_corpus(recording: Recording, layers: tuple[int, ...]) -> Corpus:
    """The recording's answers with their hidden states at `layers`."""
    requests = recording.requests
    vocab_size = recording.model.architecture.get("vocab_size")
    if vocab_size is None:
        raise ValueError("the recording does not know the model's vocabulary size; record again")
    return Corpus(
        prompts=[recording.prompts[i] for i in requests.prompt_index],
        lengths=requests.output_tokens,
        censored=requests.censored,
        layers=layers,
        sequences=recording.sequences,
        vocab_size=int(vocab_size),
        sha256=recording.sha256,
    )


def train(
    corpus: Corpus,
    served: ServedModel,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    stages: Stages,
    device: str = "cpu",
) -> Manifest:
    """Train on `corpus` and write the artefact `out`, which answers for the model `served`.

    Raises ValueError and ArtefactError.
    """
    seeded = recipe.seeded(seed)
    fitted = fit(corpus, seeded, seed, stages, device)
    manifest = fitted.manifest(served.description, corpus, seeded, (served.model_id, served.revision))
    return artefact.save(out, manifest, fitted.probe, fitted.prompt.predictor if fitted.prompt else None)
