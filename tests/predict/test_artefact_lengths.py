"""A predictor that was trained without hidden states: a prompt predictor and no probe."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trail import cli
from trail.predict import artefact
from trail.predict.manifest import ArtefactError, Manifest
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor


@pytest.fixture
def blind(tmp_path: Path, manifest: Manifest, prompt_predictor: PromptPredictor) -> Path:
    path = tmp_path / "blind"
    artefact.save(path, replace(manifest, layer=None), None, prompt_predictor)
    return path


def test_it_comes_back_without_a_probe(blind: Path, prompt_predictor: PromptPredictor) -> None:
    loaded = artefact.load(blind)
    assert loaded.probe is None
    assert loaded.manifest.layer is None
    assert loaded.prompt is not None
    np.testing.assert_array_equal(loaded.prompt.predict([[1, 2]]), prompt_predictor.predict([[1, 2]]))
    assert not (blind / "probe.safetensors").exists()


def test_its_probe_cannot_be_had(blind: Path) -> None:
    with pytest.raises(ArtefactError, match=r"trained without hidden states.*train one from a recording"):
        artefact.load_probe(blind, artefact.read_manifest(blind))


def test_it_is_shown(blind: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(blind)]) == 0
    assert "no probe" in capsys.readouterr().out


def test_neither_probe_nor_prompt_predictor_is_nothing_to_save(tmp_path: Path, manifest: Manifest) -> None:
    for layer in (None, manifest.layer):
        with pytest.raises(ArtefactError, match="must be a prompt predictor"):
            artefact.save(tmp_path / "nothing", replace(manifest, layer=layer), None)
    assert not (tmp_path / "nothing").exists()


def test_a_layer_without_a_probe_and_a_probe_without_a_layer_are_refused(
    blind: Path, saved: Path, manifest: Manifest, probe: Probe, prompt_predictor: PromptPredictor
) -> None:
    with pytest.raises(ArtefactError, match="layer is None"):
        artefact.save(saved, replace(manifest, layer=None), probe, prompt_predictor)
    for path, layer in ((blind, 2), (saved, None)):
        values = json.loads((path / "trail.json").read_text())
        (path / "trail.json").write_text(json.dumps({**values, "layer": layer}))
        with pytest.raises(ArtefactError, match="the field files must name"):
            artefact.read_manifest(path)
