"""All that decides what a recording holds: two recordings of the same settings hold the same requests."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trail.predict.fingerprint import ModelDescription
from trail.training.recording.layout import FORMAT_VERSION, RECORDING_FILE, RecordingError, shard_name
from trail.wire.ring import VECTOR_DTYPES


@dataclass(frozen=True)
class ShardPlan:
    """Requests `first` to `first + requests - 1` of the recording lie in this shard."""

    number: int
    first: int
    requests: int

    @property
    def name(self) -> str:
        """Its directory."""
        return shard_name(self.number)


@dataclass(frozen=True)
class RecordingSettings:
    """What was recorded of which model, and how.

    Request i is sample `i % samples` of prompt `i // samples`. `layers` count as Hugging Face
    `hidden_states`. `dtype` is that of the model and so of the vectors: float32, float16 or bfloat16.
    `every`: rows of a request are that many tokens apart. `vllm_args` are the user's own.
    """

    model_id: str
    model_revision: str
    model: ModelDescription
    max_model_len: int
    dtype: str
    vllm_version: str
    vllm_args: tuple[str, ...]
    layers: tuple[int, ...]
    every: int
    temperature: float
    top_p: float
    max_tokens: int
    samples: int
    seed: int
    shard_requests: int
    prompts: int
    prompts_sha256: str

    @property
    def requests(self) -> int:
        """Requests of the whole recording."""
        return self.prompts * self.samples

    def shards(self) -> list[ShardPlan]:
        """Every shard with what belongs in it."""
        firsts = range(0, self.requests, self.shard_requests)
        return [
            ShardPlan(number, first, min(self.shard_requests, self.requests - first))
            for number, first in enumerate(firsts)
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of `recording.json`."""
        shards = [{"name": s.name, "first": s.first, "requests": s.requests} for s in self.shards()]
        return {"format_version": FORMAT_VERSION, "settings": dataclasses.asdict(self), "shards": shards}


def read_settings(path: Path) -> RecordingSettings:
    """The settings of the recording in directory `path`. Raises RecordingError."""
    file = path / RECORDING_FILE
    if not path.is_dir():
        raise RecordingError(
            f"no recording at {path}: no such directory; make one with trail profile, or correct the path"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordingError(
            f"no recording at {path}: it holds no {RECORDING_FILE}; give a directory that trail profile wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot read {file} ({error}); copy or record it again") from error
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        version = values.get("format_version") if isinstance(values, dict) else None
        raise RecordingError(
            f"{file} has format version {version!r}, this TRAIL reads version {FORMAT_VERSION};"
            " record it again or install the TRAIL that wrote it"
        )
    try:
        settings = _parse(values["settings"])
        shards = values["shards"]
    except (KeyError, TypeError, ValueError) as error:
        cause = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RecordingError(f"{file}: {cause}; copy or record it again") from error
    if shards != settings.to_json()["shards"]:
        raise RecordingError(f"{file}: its shards are not those of its settings; copy or record it again")
    return settings


def differences(recorded: RecordingSettings, asked: RecordingSettings) -> list[str]:
    """What is not the same, a phrase each; the model's revision follows from its weights."""
    return list(_differences(recorded, asked))


def _differences(recorded: RecordingSettings, asked: RecordingSettings) -> Iterator[str]:
    for field in dataclasses.fields(RecordingSettings):
        before, now = getattr(recorded, field.name), getattr(asked, field.name)
        if before == now or field.name == "model_revision":
            continue
        if field.name == "model":
            yield "the model's configuration or weights have changed"
        elif field.name == "prompts_sha256":
            if recorded.prompts == asked.prompts:
                yield "the prompts have changed"
        else:
            name = field.name.replace("_", "-")
            yield f"{name} was {_shown(before)} and is {_shown(now)}"


def _shown(value: object) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def _parse(values: Mapping[str, Any]) -> RecordingSettings:
    def get(source: Mapping[str, Any], name: str, fits: Callable[[Any], bool], kind: str) -> Any:
        if not fits(source[name]):
            raise ValueError(f"the field {name} must be {kind}, got {source[name]!r}")
        return source[name]

    def text(name: str, source: Mapping[str, Any] = values) -> str:
        return str(get(source, name, lambda v: isinstance(v, str), "a string"))

    def count(name: str, source: Mapping[str, Any] = values) -> int:
        return int(get(source, name, lambda v: _is_integer(v) and v >= 1, "an integer of at least 1"))

    def number(name: str) -> float:
        return float(get(values, name, lambda v: isinstance(v, float) or _is_integer(v), "a number"))

    model = get(values, "model", lambda v: isinstance(v, dict), "an object")
    layers = get(
        values, "layers", lambda v: isinstance(v, list) and all(map(_is_integer, v)) and v != [], "layers"
    )
    return RecordingSettings(
        model_id=text("model_id"),
        model_revision=text("model_revision"),
        model=ModelDescription(
            architecture=get(model, "architecture", lambda v: isinstance(v, dict), "an object"),
            architecture_fingerprint=text("architecture_fingerprint", model),
            weights_fingerprint=text("weights_fingerprint", model),
            hidden_size=count("hidden_size", model),
            num_layers=count("num_layers", model),
        ),
        max_model_len=count("max_model_len"),
        dtype=str(get(values, "dtype", lambda v: v in VECTOR_DTYPES, f"one of {sorted(VECTOR_DTYPES)}")),
        vllm_version=text("vllm_version"),
        vllm_args=tuple(get(values, "vllm_args", lambda v: isinstance(v, list), "a list")),
        layers=tuple(layers),
        every=count("every"),
        temperature=number("temperature"),
        top_p=number("top_p"),
        max_tokens=count("max_tokens"),
        samples=count("samples"),
        seed=int(get(values, "seed", _is_integer, "an integer")),
        shard_requests=count("shard_requests"),
        prompts=count("prompts"),
        prompts_sha256=text("prompts_sha256"),
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
