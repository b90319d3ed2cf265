"""A model's fingerprints tell models apart and do not mind what leaves the model the same."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trail.predict.fingerprint import ModelError, describe_model

ModelMaker = Callable[..., Path]


def test_a_description_holds_the_shape_of_the_model(model_dir: Path) -> None:
    model = describe_model(model_dir)
    assert (model.hidden_size, model.num_layers) == (8, 4)
    assert model.architecture["architectures"] == ["LlamaForCausalLM"]
    assert len(model.architecture_fingerprint) == len(model.weights_fingerprint) == 64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", ["MistralForCausalLM"]),
        ("hidden_size", 16),
        ("intermediate_size", 32),
        ("num_hidden_layers", 5),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("vocab_size", 21),
    ],
)
def test_another_shape_has_another_architecture_fingerprint(
    make_model: ModelMaker, field: str, value: object
) -> None:
    base = describe_model(make_model("base"))
    other = describe_model(make_model("other", **{field: value}))
    assert base.architecture_fingerprint != other.architecture_fingerprint
    assert base.weights_fingerprint == other.weights_fingerprint


def test_fields_that_transformers_rewrites_do_not_count(make_model: ModelMaker) -> None:
    base = describe_model(make_model("base"))
    other = describe_model(
        make_model("other", transformers_version="4.50.0", dtype="bfloat16", rope_theta=10_000.0)
    )
    assert base.architecture_fingerprint == other.architecture_fingerprint


def test_a_config_that_leaves_key_value_heads_out_means_one_a_head(make_model: ModelMaker) -> None:
    stated = describe_model(make_model("stated", num_key_value_heads=2))
    left_out = describe_model(make_model("left-out", num_key_value_heads=None))
    assert stated.architecture_fingerprint == left_out.architecture_fingerprint


def test_a_multimodal_config_is_read_one_level_down(make_model: ModelMaker) -> None:
    text = {"hidden_size": 64, "num_hidden_layers": 7, "vocab_size": 99}
    model = describe_model(make_model("m", text_config=text, hidden_size=1, num_hidden_layers=1))
    assert (model.hidden_size, model.num_layers) == (64, 7)


def test_gpt2_spells_its_fields_differently(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"n_embd": 48, "n_layer": 3, "n_head": 2, "vocab_size": 10}))
    model = describe_model(config)
    assert (model.hidden_size, model.num_layers) == (48, 3)
    assert model.weights_fingerprint == ""


def test_a_fine_tune_has_other_weights_and_a_copy_has_the_same(make_model: ModelMaker) -> None:
    base, copy, tuned = (
        describe_model(make_model(name, seed=seed)) for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    )
    assert base.weights_fingerprint == copy.weights_fingerprint != tuned.weights_fingerprint


def test_weights_split_over_other_files_are_the_same_weights(make_model: ModelMaker) -> None:
    base = describe_model(make_model("base"))
    split = make_model("split")
    tensors = load_file(str(split / "model.safetensors"))
    (split / "model.safetensors").unlink()
    files = {name: f"model-{i}.safetensors" for i, name in enumerate(sorted(tensors))}
    for name, file in files.items():
        save_file({name: tensors[name]}, str(split / file))
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert describe_model(split).weights_fingerprint == base.weights_fingerprint
    (split / "model-1.safetensors").unlink()
    assert describe_model(split).weights_fingerprint == "", "half the weights say nothing"


def test_a_change_to_any_tensor_of_a_large_model_near_its_middle_shows(make_model: ModelMaker) -> None:
    directory = make_model("m")
    rng = np.random.default_rng(0)
    tensors = {f"layer.{i}": rng.normal(size=(40, 40)).astype(np.float32) for i in range(20)}
    save_file(tensors, str(directory / "model.safetensors"))
    seen = {describe_model(directory).weights_fingerprint}
    for name, tensor in tensors.items():
        changed = tensor.copy()
        changed[20, 0] += 1
        save_file({**tensors, name: changed}, str(directory / "model.safetensors"))
        seen.add(describe_model(directory).weights_fingerprint)
    assert len(seen) == 21


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("{", "cannot read the model config"),
        ("[]", "no JSON object"),
        ("{}", "gives no hidden_size"),
        ('{"hidden_size": 8}', "gives no num_hidden_layers"),
        ('{"hidden_size": "8", "num_hidden_layers": 2}', "gives no hidden_size"),
    ],
)
def test_a_config_that_is_none_is_named(tmp_path: Path, content: str, names: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=names):
        describe_model(tmp_path)


def test_a_directory_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model config at .*give a Hugging Face model directory"):
        describe_model(tmp_path)


@pytest.mark.parametrize("kept_bytes", [0, 4, 40, 300])
def test_weights_that_are_cut_short_are_named(model_dir: Path, kept_bytes: int) -> None:
    file = model_dir / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(ModelError, match=r"model\.safetensors is.*fetch the model again"):
        describe_model(model_dir)
