"""What the environment asks of the engine side, parsed once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trail.wire import names

MAX_LAYER = 2**16 - 1
ATTACH_INTERVAL_NS = 250_000_000
"""How often a missing or silent sidecar is looked for."""


class ConfigError(ValueError):
    """An environment variable of TRAIL holds a value that cannot be used; the message says which."""


@dataclass(frozen=True)
class EngineConfig:
    """The engine side's settings.

    `layers` are indices into Hugging Face `hidden_states`, ascending; empty means that nothing is exported
    and ranks come from the prompt predictor alone. `otlp_endpoint` is where vLLM's own spans go unless its
    user says otherwise, empty for nowhere. `problem` is empty, or the sentence that says why TRAIL is off
    although it was asked for.
    """

    enabled: bool = False
    directory: Path = names.DEFAULT_DIR
    layers: tuple[int, ...] = ()
    export_every: int = 1
    heartbeat_ns: int = int(names.DEFAULT_HEARTBEAT_MS * 1e6)
    stats: bool = False
    otlp_endpoint: str = ""
    trace_ratio: str = ""
    """As OpenTelemetry's own variable takes it; empty: whatever that says."""
    problem: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "EngineConfig":
        """Settings from `environ`. Never raises: an unusable value disables TRAIL and sets `problem`."""
        if environ.get(names.ENV_ENABLED, "").strip() != "1":
            return cls()
        try:
            return cls(
                enabled=True,
                directory=_directory(environ.get(names.ENV_DIR, "")),
                layers=_layers(environ.get(names.ENV_LAYERS, "")),
                export_every=_export_every(environ.get(names.ENV_EXPORT_EVERY, "")),
                heartbeat_ns=_heartbeat_ns(environ.get(names.ENV_HEARTBEAT_MS, "")),
                stats=environ.get(names.ENV_STATS, "").strip() == "1",
                otlp_endpoint=environ.get(names.ENV_OTLP_ENDPOINT, "").strip(),
                trace_ratio=environ.get(names.ENV_TRACE_RATIO, "").strip(),
            )
        except ConfigError as error:
            return cls(problem=str(error))


def _directory(text: str) -> Path:
    path = Path(text.strip()) if text.strip() else names.DEFAULT_DIR
    if not path.is_absolute():
        raise ConfigError(
            f"{names.ENV_DIR}={text!r} is not an absolute path; name the directory shared with the sidecar"
        )
    return path


def _layers(text: str) -> tuple[int, ...]:
    try:
        layers = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise ConfigError(
            f"{names.ENV_LAYERS}={text!r} is not a comma-separated list of layer numbers, for example 11"
        ) from None
    if layers and not (layers[0] >= 0 and layers[-1] <= MAX_LAYER):
        raise ConfigError(f"{names.ENV_LAYERS}={text!r} is out of range; layers are 0 to {MAX_LAYER}")
    return tuple(layers)


def _export_every(text: str) -> int:
    try:
        every = int(text) if text.strip() else 1
    except ValueError:
        every = 0
    if every < 1:
        raise ConfigError(f"{names.ENV_EXPORT_EVERY}={text!r} is not a whole number of steps of at least 1")
    return every


def _heartbeat_ns(text: str) -> int:
    try:
        limit_ms = float(text) if text.strip() else names.DEFAULT_HEARTBEAT_MS
    except ValueError:
        limit_ms = 0.0
    if not 1.0 <= limit_ms <= 60_000.0:
        raise ConfigError(
            f"{names.ENV_HEARTBEAT_MS}={text!r} is not a number of milliseconds from 1 to 60000"
        )
    return int(limit_ms * 1e6)


def engine_index(parallel_config: object) -> int:
    """Number of this engine core in file names: its data-parallel index.

    `data_parallel_index`, not `data_parallel_rank`: vLLM runs the replicas of a dense model as engines of
    their own and resets their rank to 0, the index stays (vllm/v1/engine/core.py).
    """
    return int(getattr(parallel_config, "data_parallel_index", 0))
