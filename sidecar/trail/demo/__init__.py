"""A small language model of our own whose answers end by themselves, with its trained predictor."""

from importlib.resources import files
from pathlib import Path


def demo_model_dir() -> Path:
    """Directory of the committed model: config.json, model.safetensors and tokenizer files."""
    return _data() / "model"


def demo_predictor_dir() -> Path:
    """Directory of the predictor artefact trained for the committed model."""
    return _data() / "predictor"


def _data() -> Path:
    # A plain directory, also when installed: wheels are unpacked on disk.
    return Path(str(files("trail.demo") / "data"))
