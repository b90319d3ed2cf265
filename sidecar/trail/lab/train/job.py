"""A recording as training data, and one training of it into an artefact."""

from pathlib import Path

from trail.lab.fitting import Corpus, Fitted, fit
from trail.lab.recording import Recording
from trail.lab.stages import Stages
from trail.predict import artefact
from trail.predict.manifest import Manifest
from trail.predict.recipes import Recipe


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
    recording: Recording,
    corpus: Corpus,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    stages: Stages,
    device: str = "cpu",
) -> Manifest:
    """Train on `corpus` and write the artefact `out`. Raises ValueError and ArtefactError."""
    seeded = recipe.seeded(seed)
    return save(recording, corpus, seeded, fit(corpus, seeded, seed, stages, device), out)


def save(recording: Recording, corpus: Corpus, recipe: Recipe, fitted: Fitted, out: Path) -> Manifest:
    """Write `fitted` to `out`; it answers for the model that was recorded."""
    names = (recording.model_id, recording.settings.model_revision)
    manifest = fitted.manifest(recording.model, corpus, recipe, names)
    return artefact.save(out, manifest, fitted.probe, fitted.prompt.predictor if fitted.prompt else None)
