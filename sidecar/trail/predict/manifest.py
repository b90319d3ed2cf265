"""`trail.json`: what a predictor on disk says about itself."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trail.predict.bins import Bins
from trail.predict.fingerprint import ModelDescription, architecture_fingerprint
from trail.predict.refine import PAPER, Decoding

FORMAT_VERSION = 4
_READ_VERSIONS = (2, 3, 4)
"""Version 2 knew no novelty of the filter, which was 0; up to version 3 every predictor had a probe."""

MANIFEST_FILE = "trail.json"
PROBE_FILE = "probe.safetensors"
PROMPT_DIR = "prompt"
PROMPT_FILES = (f"{PROMPT_DIR}/config.json", f"{PROMPT_DIR}/model.safetensors")
TOKENIZER_FILES = (f"{PROMPT_DIR}/model-tokenizer.json", f"{PROMPT_DIR}/encoder-tokenizer.json")
"""Of an encoder that reads text and not the model's own tokens."""


class ArtefactError(ValueError):
    """A predictor that cannot be used; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class FileRecord:
    """One weight file of the artefact as it was saved."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Identity of a predictor: the model it reads, what it was trained on, and how well it did.

    `architecture`, `model_fingerprint` and `weights_fingerprint` come from `fingerprint.describe_model`.
    `layer` counts as Hugging Face `hidden_states[layer]`; None: there is no probe, only a prompt predictor.
    `mean_output_tokens` is the mean whole output
    length in the training data, the best guess for a request nobody has looked at. `decoding` says how the
    probe's outputs become predictions. `metrics` and `recipe` are JSON objects for people. `files` is filled
    in when the artefact is saved. Raises ArtefactError for values that contradict each other.
    """

    model_id: str
    model_revision: str
    model_fingerprint: str
    weights_fingerprint: str
    architecture: Mapping[str, Any]
    layer: int | None
    hidden_size: int
    num_layers: int
    bins: Bins
    training_data_sha256: str
    mean_output_tokens: float
    decoding: Decoding = PAPER
    metrics: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("hidden_size", self.hidden_size), ("num_hidden_layers", self.num_layers)):
            if self.architecture.get(name) != value:
                raise ArtefactError(
                    f"the architecture has {name} {self.architecture.get(name)!r}, the manifest says {value}"
                )
        if self.layer is not None and not 0 <= self.layer < self.num_layers:
            raise ArtefactError(
                f"layer {self.layer} does not exist: the model has {self.num_layers} layers, numbered 0 to"
                f" {self.num_layers - 1} as in Hugging Face hidden_states; name one of these"
            )
        if not (math.isfinite(self.mean_output_tokens) and self.mean_output_tokens > 0):
            raise ArtefactError(f"mean_output_tokens must be positive, got {self.mean_output_tokens}")
        if self.model_fingerprint != architecture_fingerprint(self.architecture):
            raise ArtefactError("model_fingerprint is not that of the architecture fields beside it")

    @classmethod
    def for_model(
        cls,
        model: ModelDescription,
        *,
        model_id: str,
        model_revision: str,
        layer: int | None,
        bins: Bins,
        training_data_sha256: str,
        mean_output_tokens: float,
        decoding: Decoding,
        metrics: Mapping[str, Any],
        recipe: Mapping[str, Any],
    ) -> "Manifest":
        """The manifest of a predictor trained on hidden states of `model`."""
        return cls(
            model_id=model_id,
            model_revision=model_revision,
            model_fingerprint=model.architecture_fingerprint,
            weights_fingerprint=model.weights_fingerprint,
            architecture=model.architecture,
            layer=layer,
            hidden_size=model.hidden_size,
            num_layers=model.num_layers,
            bins=bins,
            training_data_sha256=training_data_sha256,
            mean_output_tokens=mean_output_tokens,
            decoding=decoding,
            metrics=metrics,
            recipe=recipe,
        )

    @property
    def has_prompt(self) -> bool:
        """Whether a prompt predictor lies beside the probe."""
        return PROMPT_FILES[0] in self.files

    def to_json(self) -> dict[str, Any]:
        """The content of `trail.json`."""
        values = dataclasses.asdict(self)
        values["bins"] = list(self.bins.edges)
        return {"format_version": FORMAT_VERSION, **values}


def read_manifest(path: Path) -> Manifest:
    """Read and check `trail.json` of the artefact directory `path`. Raises ArtefactError."""
    file = path / MANIFEST_FILE
    if not path.is_dir():
        raise ArtefactError(f"no predictor at {path}: no such directory; give the directory of a predictor")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtefactError(
            f"no predictor at {path}: it holds no {MANIFEST_FILE}; give the directory of a predictor"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"cannot read {file} ({error}); copy or train the predictor again") from error
    if not isinstance(values, dict):
        raise ArtefactError(f"{file} holds no JSON object; copy or train the predictor again")
    version = values.get("format_version")
    if type(version) is not int or version not in _READ_VERSIONS:
        raise ArtefactError(
            f"{file} has format version {version!r}, this TRAIL reads versions"
            f" {', '.join(map(str, _READ_VERSIONS[:-1]))} and {_READ_VERSIONS[-1]}; train the predictor"
            " again or install the TRAIL that wrote it"
        )
    try:
        return _parse(values)
    except (_FieldError, ValueError, OverflowError) as error:
        raise ArtefactError(f"{file}: {error}; copy or train the predictor again") from error


class _FieldError(Exception):
    pass


def _parse(values: Mapping[str, Any]) -> Manifest:
    def get(name: str, fits: Callable[[Any], bool], kind: str) -> Any:
        if name not in values:
            raise _FieldError(f"the field {name} is missing")
        if not fits(values[name]):
            raise _FieldError(f"the field {name} must be {kind}, got {values[name]!r}")
        return values[name]

    def text(name: str) -> str:
        return str(get(name, lambda value: isinstance(value, str), "a string"))

    def integer(name: str) -> int:
        return int(get(name, _is_integer, "an integer"))

    def mapping(name: str) -> dict[str, Any]:
        return dict(get(name, lambda value: isinstance(value, dict), "an object"))

    layer = get("layer", lambda value: value is None or _is_integer(value), "an integer, or null")
    edges = get("bins", lambda value: isinstance(value, list) and all(map(_is_number, value)), "edges")
    mean = get("mean_output_tokens", _is_number, "a number")
    return Manifest(
        model_id=text("model_id"),
        model_revision=text("model_revision"),
        model_fingerprint=text("model_fingerprint"),
        weights_fingerprint=text("weights_fingerprint"),
        architecture=mapping("architecture"),
        layer=layer,
        hidden_size=integer("hidden_size"),
        num_layers=integer("num_layers"),
        bins=Bins(tuple(float(edge) for edge in edges)),
        training_data_sha256=text("training_data_sha256"),
        mean_output_tokens=float(mean),
        decoding=Decoding.from_json(mapping("decoding")),
        metrics=mapping("metrics"),
        recipe=mapping("recipe"),
        files=_parse_files(mapping("files"), probe=layer is not None),
    )


def _parse_files(entries: Mapping[str, Any], *, probe: bool) -> dict[str, FileRecord]:
    probe_files = {PROBE_FILE} if probe else set()
    with_prompt = {*probe_files, *PROMPT_FILES}
    if set(entries) not in (probe_files or with_prompt, with_prompt, with_prompt | set(TOKENIZER_FILES)):
        raise _FieldError(
            f"the field files must name {PROBE_FILE} where there is a layer, {' and '.join(PROMPT_FILES)} or"
            f" not where there is one, and with these {' and '.join(TOKENIZER_FILES)} or not, got"
            f" {sorted(entries)}"
        )
    records = {}
    for name, entry in entries.items():
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("sha256"), str)
            or not _is_integer(entry.get("bytes"))
        ):
            raise _FieldError(f"the entry of {name} in files must hold sha256 and bytes, got {entry!r}")
        records[name] = FileRecord(sha256=entry["sha256"], bytes=entry["bytes"])
    return records


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
