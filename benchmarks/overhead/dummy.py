"""A model of random weights whose step takes 10 ms or more on one core, and a predictor for it."""

import hashlib
import json
from pathlib import Path

from trail.predict import artefact
from trail.predict.bins import equal_bins
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor
from trail.predict.refine import PAPER

HIDDEN_SIZE = 512
LAYERS = 12
VOCABULARY = 4096


def write_model(directory: Path, vocabulary: int = VOCABULARY) -> Path:
    """`config.json` of a Llama of about 45 M parameters; `load_format=dummy` fills it."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 3 * HIDDEN_SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    return directory


def write_predictor(directory: Path, model: Path, vocabulary: int = VOCABULARY) -> Path:
    """A predictor of random weights: what it says is meaningless, what it costs is not."""
    bins = equal_bins()
    description = describe_model(model)
    layer = description.num_layers // 2
    probe = Probe.untrained(description.hidden_size, bins, layer)
    prompt = PromptPredictor.untrained(vocabulary, bins)
    manifest = Manifest.for_model(
        description,
        model_id="dummy",
        model_revision="random weights",
        layer=layer,
        bins=bins,
        training_data_sha256=hashlib.sha256(b"").hexdigest(),
        mean_output_tokens=128.0,
        decoding=PAPER,
        metrics={},
        recipe={"name": "untrained"},
    )
    artefact.save(directory, manifest, probe, prompt)
    return directory
