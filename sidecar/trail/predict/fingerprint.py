"""What identifies a served model: its architecture, and a sample of its weights.

A probe reads one model's hidden states; on another model's it answers nonsense without an error. So a
predictor remembers both fingerprints of the model that it was trained on:

- *architecture*: the fields of `config.json` that fix the shape of the model, under one spelling.
  Fields that transformers rewrites between releases (dtype, RoPE parameters, its own version) stay out.
- *weights*: name, dtype, shape and 256 bytes from the middle of up to 512 tensors in the order of their
  names. A fine-tune of the same architecture differs, a copy split over other files does not, and no
  more than the headers and 128 KiB are read.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "architectures": ("architectures",),
    "model_type": ("model_type",),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads",),
    "vocab_size": ("vocab_size",),
}

_SAMPLED_TENSORS = 512
_SAMPLED_BYTES = 256
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


class ModelError(ValueError):
    """A model directory or config.json that cannot be described; the message says what to do."""


@dataclass(frozen=True)
class ModelDescription:
    """One model as far as a predictor depends on it.

    `architecture` holds JSON values under the names of `_ALIASES`; `weights_fingerprint` is empty where
    no safetensors weights lie beside the config.
    """

    architecture: Mapping[str, Any]
    architecture_fingerprint: str
    weights_fingerprint: str
    hidden_size: int
    num_layers: int


def describe_model(model: Path) -> ModelDescription:
    """Describe the model in a directory (or given by its config.json alone). Raises ModelError."""
    config_path = model / CONFIG_FILE if model.is_dir() else model
    architecture = read_architecture(config_path)
    return ModelDescription(
        architecture=architecture,
        architecture_fingerprint=architecture_fingerprint(architecture),
        weights_fingerprint=weights_fingerprint(model) if model.is_dir() else "",
        hidden_size=architecture["hidden_size"],
        num_layers=architecture["num_hidden_layers"],
    )


def read_architecture(config_path: Path) -> dict[str, Any]:
    """The architecture fields of a config.json; null where the model has none. Raises ModelError."""
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"no model config at {config_path}; give a Hugging Face model directory") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the model config {config_path}: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{config_path} holds no JSON object; give a Hugging Face model's config.json")
    # Multimodal models keep the language model's shape one level down.
    text = config.get("text_config")
    fields = {**config, **text} if isinstance(text, dict) else config
    architecture = {
        name: next((fields[key] for key in keys if fields.get(key) is not None), None)
        for name, keys in _ALIASES.items()
    }
    architecture["architectures"] = config.get("architectures")
    if architecture["num_key_value_heads"] is None:  # written only by newer configs
        architecture["num_key_value_heads"] = architecture["num_attention_heads"]
    for name in ("hidden_size", "num_hidden_layers"):
        value = architecture[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"{config_path} gives no {name}; TRAIL needs a decoder language model's config")
    return architecture


def architecture_fingerprint(architecture: Mapping[str, Any]) -> str:
    """sha256 (hex) of the architecture fields as canonical JSON."""
    canonical = json.dumps(dict(architecture), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def weights_fingerprint(model_dir: Path) -> str:
    """sha256 (hex) over a sample of the model's tensors; empty where its safetensors files are not all here.

    Raises ModelError for a file that is no safetensors file or is cut short.
    """
    tensors: dict[str, tuple[Path, str, int, int]] = {}
    for path in _weight_files(model_dir):
        for name, (label, begin, end) in _tensor_table(path).items():
            tensors[name] = (path, label, begin, end)
    if not tensors:
        return ""
    names = sorted(tensors)
    stride = -(-len(names) // _SAMPLED_TENSORS)
    digest = hashlib.sha256()
    for name in names[::stride]:
        path, label, begin, end = tensors[name]
        middle = begin + max(0, (end - begin - _SAMPLED_BYTES) // 2)
        with path.open("rb") as file:
            file.seek(middle)
            sample = file.read(min(_SAMPLED_BYTES, end - begin))
        digest.update(f"{name}\0{label}\0".encode())
        digest.update(sample)
    return digest.hexdigest()


def _weight_files(model_dir: Path) -> list[Path]:
    """The files transformers and vLLM would load; a repository may hold the weights twice over."""
    try:
        index = json.loads((model_dir / INDEX_FILE).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        names = [WEIGHTS_FILE]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read {model_dir / INDEX_FILE} ({error}); fetch the model again") from error
    paths = [model_dir / name for name in names]
    return paths if all(path.is_file() for path in paths) else []


def _tensor_table(path: Path) -> dict[str, tuple[str, int, int]]:
    """Tensor name -> (dtype and shape, first byte, end byte) within the file, from its header."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise ModelError(f"{path} is cut short or no safetensors file; fetch the model again")
            header = json.loads(file.read(header_bytes))
        data = 8 + header_bytes
        table = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (data + offset for offset in entry["data_offsets"])
            if not data <= begin <= end <= size:
                raise ModelError(f"{path} is cut short: tensor {name} ends beyond it; fetch the model again")
            table[name] = (f"{entry['dtype']}{entry['shape']}", begin, end)
    except (struct.error, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is no safetensors file ({error}); fetch the model again") from error
    return table
