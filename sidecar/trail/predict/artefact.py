"""A predictor on disk: a directory with `trail.json`, the probe's weights and a prompt predictor.

    trail.json            identity, metrics, and sha256 of every file below
    probe.safetensors     the probe; missing where the predictor was trained without hidden states
    prompt/               optional beside a probe: a transformers BERT-type classifier (config.json,
                          model.safetensors), with the model's and its own tokenizer where it reads text

Nothing in it is code and nothing is unpickled.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save_file

from trail.predict.fingerprint import ModelError, describe_model
from trail.predict.manifest import (
    MANIFEST_FILE,
    PROBE_FILE,
    PROMPT_DIR,
    ArtefactError,
    FileRecord,
    Manifest,
    read_manifest,
)
from trail.predict.probe import Probe
from trail.predict.storage import replacing_directory, sha256_file

if TYPE_CHECKING:  # importing transformers takes seconds; a sidecar starts without it
    from trail.predict.prompt import PromptPredictor

__all__ = [
    "Artefact",
    "ArtefactError",
    "Manifest",
    "check_model",
    "load",
    "load_probe",
    "load_prompt",
    "read_manifest",
    "save",
]


@dataclass(frozen=True)
class Artefact:
    """A loaded and checked predictor; `probe` or `prompt` is None where the artefact has none."""

    manifest: Manifest
    probe: Probe | None
    prompt: "PromptPredictor | None"


def load(path: Path) -> Artefact:
    """Load all of an artefact. Raises ArtefactError unless every part is whole and fits the others."""
    manifest = read_manifest(path)
    probe = None if manifest.layer is None else load_probe(path, manifest)
    return Artefact(manifest, probe, load_prompt(path, manifest))


def load_probe(path: Path, manifest: Manifest) -> Probe:
    """Load the probe alone, in milliseconds. Raises ArtefactError, also where there is none."""
    if manifest.layer is None:
        raise ArtefactError(
            f"{path} was trained without hidden states and has no probe; train one from a recording"
        )
    file = path / PROBE_FILE
    _check_file(path, PROBE_FILE, manifest)
    try:
        probe = Probe(load_tensors(file.read_bytes()), manifest.bins, manifest.layer)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtefactError(f"{file}: {error}; copy or train the predictor again") from error
    if probe.hidden_size != manifest.hidden_size:
        raise ArtefactError(
            f"{file} reads hidden size {probe.hidden_size}, {MANIFEST_FILE} says {manifest.hidden_size};"
            " the two are from different predictors: copy or train the predictor again"
        )
    return probe


def load_prompt(path: Path, manifest: Manifest) -> "PromptPredictor | None":
    """Load the prompt predictor alone, None where there is none. Raises ArtefactError.

    Imports transformers, which takes seconds.
    """
    if not manifest.has_prompt:
        return None
    for name in manifest.files:
        if name != PROBE_FILE:
            _check_file(path, name, manifest)
    from trail.predict.prompt import PromptPredictor

    try:
        return PromptPredictor.read(path / PROMPT_DIR, manifest.bins)
    except Exception as error:  # transformers has no common error for a bad configuration
        cause = " ".join(str(error).split())
        raise ArtefactError(f"{path / PROMPT_DIR}: {cause}; copy or train the predictor again") from error


def save(
    path: Path, manifest: Manifest, probe: Probe | None, prompt: "PromptPredictor | None" = None
) -> Manifest:
    """Write an artefact to `path` and return its manifest with the files' checksums filled in.

    An artefact that is already there is replaced whole or, when this fails or is interrupted, not at all.
    Raises ArtefactError when the parts do not fit each other or `path` holds something else than an
    artefact.
    """
    _check_parts(manifest, probe, prompt)
    if path.exists() and not (
        path.is_dir() and ((path / MANIFEST_FILE).is_file() or not any(path.iterdir()))
    ):
        raise ArtefactError(f"{path} holds something else than a predictor; name another directory")
    with replacing_directory(path) as directory:
        names = []
        if probe is not None:
            save_file(probe.weights, str(directory / PROBE_FILE))
            names.append(PROBE_FILE)
        if prompt is not None:
            names += [f"{PROMPT_DIR}/{name}" for name in prompt.save(directory / PROMPT_DIR)]
        records = {
            name: FileRecord(sha256_file(directory / name), (directory / name).stat().st_size)
            for name in names
        }
        complete = dataclasses.replace(manifest, files=records)
        text = json.dumps(complete.to_json(), indent=2, sort_keys=True, allow_nan=False)
        (directory / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return complete


def check_model(manifest: Manifest, model: Path) -> None:
    """Raise ArtefactError unless the predictor was trained for the model at `model`.

    `model` is a Hugging Face model directory or its config.json. Weights are compared where both sides
    know theirs; a config alone, or weights in another format, are judged by architecture.
    """
    try:
        served = describe_model(model)
    except ModelError as error:
        raise ArtefactError(str(error)) from error
    advice = "serve that model, or train a predictor for this one"
    trained_on = f"the predictor was trained for {manifest.model_id} ({manifest.model_revision})"
    if served.architecture_fingerprint != manifest.model_fingerprint:
        differences = ", ".join(
            f"{name} {served.architecture.get(name)!r} instead of {manifest.architecture.get(name)!r}"
            for name in sorted({*served.architecture, *manifest.architecture})
            if served.architecture.get(name) != manifest.architecture.get(name)
        )
        raise ArtefactError(f"{model} is another model: {trained_on}; it has {differences}; {advice}")
    both = served.weights_fingerprint and manifest.weights_fingerprint
    if both and served.weights_fingerprint != manifest.weights_fingerprint:
        raise ArtefactError(
            f"{model} has the right shape but other weights (a fine-tune, quantisation or dtype):"
            f" {trained_on}; {advice}"
        )


def _check_parts(manifest: Manifest, probe: Probe | None, prompt: "PromptPredictor | None") -> None:
    if probe is None:
        if manifest.layer is not None or prompt is None:
            raise ArtefactError("without a probe there is no layer, and there must be a prompt predictor")
    else:
        for name, of_manifest, of_probe in (
            ("hidden size", manifest.hidden_size, probe.hidden_size),
            ("layer", manifest.layer, probe.layer),
            ("bins", manifest.bins, probe.bins),
        ):
            if of_manifest != of_probe:
                raise ArtefactError(f"the manifest's {name} is {of_manifest}, the probe's is {of_probe}")
    if prompt is not None and prompt.bins != manifest.bins:
        raise ArtefactError(f"the manifest's bins are {manifest.bins}, the prompt predictor's {prompt.bins}")


def _check_file(path: Path, name: str, manifest: Manifest) -> None:
    file, record = path / name, manifest.files.get(name)
    if record is None:
        raise ArtefactError(f"{path / MANIFEST_FILE} does not list {name}; copy or train the predictor again")
    try:
        size = file.stat().st_size
        if size != record.bytes:
            raise ArtefactError(
                f"{file} has {size} bytes, {MANIFEST_FILE} says {record.bytes};"
                " it was cut short or exchanged: copy or train the predictor again"
            )
        if sha256_file(file) != record.sha256:
            raise ArtefactError(
                f"{file} is not the file that {MANIFEST_FILE} describes (its sha256 differs);"
                " copy or train the predictor again"
            )
    except OSError as error:
        raise ArtefactError(f"cannot read {file} ({error}); copy or train the predictor again") from error
