"""An artefact that is not whole or is for something else is refused, and the sentence says what to do."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from trail.predict import artefact
from trail.predict.artefact import ArtefactError
from trail.predict.bins import equal_bins
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe

WEIGHT_FILES = ["probe.safetensors", "prompt/config.json", "prompt/model.safetensors"]
FILES = [*WEIGHT_FILES, "trail.json"]

ModelMaker = Callable[..., Path]

once = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def edit(path: Path, **changes: Any) -> None:
    """Change fields of trail.json; None removes the field."""
    file = path / "trail.json"
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def record(path: Path, name: str) -> None:
    """Make trail.json agree with a changed file, so that the checks behind the checksum are reached."""
    content = (path / name).read_bytes()
    files = json.loads((path / "trail.json").read_text())["files"]
    files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(path, files=files)


def test_a_missing_directory_and_one_without_a_manifest_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no predictor at .*/nowhere: no such directory"):
        artefact.load(tmp_path / "nowhere")
    with pytest.raises(ArtefactError, match=r"no predictor at .* holds no trail\.json"):
        artefact.load(tmp_path)


@pytest.mark.parametrize("version", [0, 1, 5, "2", None, 2.0, 2.5, [2]])
def test_another_format_version_is_refused_before_anything_else_is_read(saved: Path, version: object) -> None:
    (saved / "trail.json").write_text(json.dumps({"format_version": version}))
    with pytest.raises(
        ArtefactError, match="this TRAIL reads versions 2, 3 and 4; train the predictor again or install"
    ):
        artefact.load(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ArtefactError, match=name):
        artefact.load(saved)


@once
@given(name=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_refused(saved: Path, name: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "p"
        shutil.copytree(saved, path)
        content = (path / name).read_bytes()
        # trail.json ends in a newline that is no part of the JSON
        (path / name).write_bytes(content[: min(int(len(content) * share), len(content) - 2)])
        cause = "cut short" if name in WEIGHT_FILES else "cannot read"
        with pytest.raises(ArtefactError, match=f"{name}.*{cause}|{cause}.*{name}"):
            artefact.load(path)


@once
@given(name=st.sampled_from(WEIGHT_FILES), share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_anywhere_in_the_weights_is_refused(
    saved: Path, name: str, share: float, flip: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "p"
        shutil.copytree(saved, path)
        content = bytearray((path / name).read_bytes())
        content[min(int(len(content) * share), len(content) - 1)] ^= flip
        (path / name).write_bytes(content)
        with pytest.raises(ArtefactError, match=f"{name} is not the file.*copy or train the predictor again"):
            artefact.load(path)


@once
@given(name=st.sampled_from(WEIGHT_FILES), content=st.binary(max_size=200))
def test_rubbish_under_a_right_checksum_is_refused(saved: Path, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "p"
        shutil.copytree(saved, path)
        (path / name).write_bytes(content)
        record(path, name)
        with pytest.raises(ArtefactError, match=name.split("/", maxsplit=1)[0]):
            artefact.load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@once
@given(file=st.sampled_from(["trail.json", "prompt/config.json"]), value=json_values, data=st.data())
def test_any_value_in_any_field_is_refused_or_gives_a_predictor_that_works(
    saved: Path, file: str, value: object, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "p"
        shutil.copytree(saved, path)
        fields = json.loads((path / file).read_text())
        fields[data.draw(st.sampled_from(sorted(fields)))] = value
        (path / file).write_text(json.dumps(fields))
        if file != "trail.json":
            record(path, file)
        try:
            loaded = artefact.load(path)
        except ArtefactError:
            return
        assert loaded.probe.predict(np.ones((1, 8), dtype=np.float32)).sum() == pytest.approx(1, abs=1e-5)
        assert loaded.prompt is not None
        assert loaded.prompt.predict([[1, 2]]).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"layer": None}, "layer is missing"),
        ({"layer": "2"}, "layer must be an integer, or null, got '2'"),
        ({"layer": 4}, "layer 4 does not exist: the model has 4 layers, numbered 0 to 3"),
        ({"layer": -1}, "layer -1 does not exist"),
        ({"hidden_size": 16}, "architecture has hidden_size 8, the manifest says 16"),
        ({"num_layers": 40}, "architecture has num_hidden_layers 4, the manifest says 40"),
        ({"bins": [0, 10, 5]}, "bins must ascend"),
        ({"bins": [0.0, 10.0, 20.0]}, "fits 16 hidden units and 2 bins"),
        ({"mean_output_tokens": 0}, "mean_output_tokens must be positive"),
        ({"architecture": {"hidden_size": 8, "num_hidden_layers": 4}}, "not that of the architecture"),
        ({"files": {}}, "files must name probe.safetensors"),
        ({"files": {"probe.safetensors": {}, "../../etc/passwd": {}}}, "files must name probe.safetensors"),
    ],
)
def test_a_manifest_that_contradicts_itself_or_its_files_is_refused(
    saved: Path, changes: dict[str, Any], names: str
) -> None:
    edit(saved, **changes)
    with pytest.raises(ArtefactError, match=names):
        artefact.load(saved)


@pytest.mark.parametrize(
    "field",
    ["num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"],
)
def test_a_config_that_asks_for_more_than_the_weights_hold_is_refused_before_memory_is_taken(
    saved: Path, field: str
) -> None:
    config = json.loads((saved / "prompt/config.json").read_text())
    (saved / "prompt/config.json").write_text(json.dumps({**config, field: 10**12}))
    record(saved, "prompt/config.json")
    with pytest.raises(ArtefactError, match=r"config\.json (says|describes)"):
        artefact.load(saved)


def test_a_probe_of_another_hidden_size_is_refused(saved: Path, probe: Probe) -> None:
    other = Probe.untrained(16, probe.bins, probe.layer)
    save_file(other.weights, str(saved / "probe.safetensors"))
    record(saved, "probe.safetensors")
    with pytest.raises(ArtefactError, match=r"reads hidden size 16, trail\.json says 8"):
        artefact.load(saved)


@pytest.mark.parametrize("name", ["probe.safetensors", "prompt/model.safetensors"])
def test_weights_that_are_not_finite_are_refused(saved: Path, name: str) -> None:
    tensors = load_file(str(saved / name))
    tensors[min(tensors)].flat[0] = np.nan
    save_file(tensors, str(saved / name))
    record(saved, name)
    with pytest.raises(ArtefactError, match=f"{name.split('/', maxsplit=1)[0]}.*holds NaN or infinity"):
        artefact.load(saved)


def test_parts_that_do_not_fit_each_other_are_not_saved(
    tmp_path: Path, manifest: Manifest, probe: Probe
) -> None:
    with pytest.raises(ArtefactError, match="layer is 2, the probe's is 1"):
        artefact.save(tmp_path / "p", manifest, Probe(probe.weights, probe.bins, 1))
    with pytest.raises(ArtefactError, match="hidden size is 8, the probe's is 9"):
        artefact.save(tmp_path / "p", manifest, Probe.untrained(9, probe.bins, 2))
    with pytest.raises(ArtefactError, match="bins"):
        artefact.save(tmp_path / "p", manifest, Probe.untrained(8, equal_bins(), 2))
    assert not (tmp_path / "p").exists()


def test_a_directory_of_something_else_is_never_replaced(
    tmp_path: Path, manifest: Manifest, probe: Probe
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(ArtefactError, match="holds something else than a predictor"):
        artefact.save(tmp_path / "home", manifest, probe)
    with pytest.raises(ArtefactError, match="holds something else than a predictor"):
        artefact.save(tmp_path / "home" / "letter", manifest, probe)
    assert (tmp_path / "home" / "letter").read_text() == "dear"


def test_the_model_it_was_trained_for_is_accepted(saved: Path, model_dir: Path) -> None:
    manifest = artefact.read_manifest(saved)
    artefact.check_model(manifest, model_dir)
    artefact.check_model(manifest, model_dir / "config.json")


def test_a_model_of_another_shape_is_refused_and_the_difference_named(
    saved: Path, make_model: ModelMaker
) -> None:
    other = make_model("other", hidden_size=16, num_hidden_layers=2)
    with pytest.raises(
        ArtefactError,
        match=r"trained for example/small \(abc123\); it has hidden_size 16 instead of 8,"
        r" num_hidden_layers 2 instead of 4; serve that model, or train a predictor for this one",
    ):
        artefact.check_model(artefact.read_manifest(saved), other)


def test_a_fine_tune_of_the_same_shape_is_refused(saved: Path, make_model: ModelMaker) -> None:
    tuned = make_model("tuned", seed=1)
    with pytest.raises(ArtefactError, match="right shape but other weights"):
        artefact.check_model(artefact.read_manifest(saved), tuned)


def test_weights_are_not_compared_where_one_side_does_not_know_them(
    saved: Path, make_model: ModelMaker
) -> None:
    tuned = make_model("tuned", seed=1)
    artefact.check_model(replace(artefact.read_manifest(saved), weights_fingerprint=""), tuned)
    (tuned / "model.safetensors").unlink()
    artefact.check_model(artefact.read_manifest(saved), tuned)


def test_a_model_directory_that_is_none_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no model config"):
        artefact.check_model(artefact.read_manifest(saved), tmp_path)
