"""What is saved is what is loaded, and the parts can be had one by one."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from trail.predict import artefact
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor

VECTORS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
PROMPTS = [[1, 2, 3], [4], list(range(19))]


def test_probe_prompt_predictor_and_manifest_come_back_the_same(
    saved: Path, manifest: Manifest, probe: Probe, prompt_predictor: PromptPredictor
) -> None:
    loaded = artefact.load(saved)
    assert replace(loaded.manifest, files={}) == manifest
    np.testing.assert_array_equal(loaded.probe.predict(VECTORS), probe.predict(VECTORS))
    assert loaded.probe.layer == manifest.layer
    assert loaded.prompt is not None
    np.testing.assert_array_equal(loaded.prompt.predict(PROMPTS), prompt_predictor.predict(PROMPTS))


def test_an_artefact_may_do_without_a_prompt_predictor(
    tmp_path: Path, manifest: Manifest, probe: Probe
) -> None:
    artefact.save(tmp_path / "p", manifest, probe)
    loaded = artefact.load(tmp_path / "p")
    assert not loaded.manifest.has_prompt
    assert loaded.prompt is None


def test_the_directory_holds_the_stated_files_and_nothing_else_is_left(saved: Path) -> None:
    files = sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
    assert files == ["probe.safetensors", "prompt/config.json", "prompt/model.safetensors", "trail.json"]
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model", "predictor"]
    assert saved.stat().st_mode & 0o777 == 0o755


def test_saving_again_replaces_the_whole(saved: Path, manifest: Manifest, probe: Probe) -> None:
    other = Probe.untrained(8, probe.bins, probe.layer, units=4, seed=9)
    artefact.save(saved, manifest, other)
    loaded = artefact.load(saved)
    np.testing.assert_array_equal(loaded.probe.predict(VECTORS), other.predict(VECTORS))
    assert loaded.prompt is None
    assert not (saved / "prompt").exists()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model", "predictor"]


def test_an_artefact_of_the_version_before_novelty_is_read_with_none(saved: Path, manifest: Manifest) -> None:
    values = json.loads((saved / "trail.json").read_text())
    del values["decoding"]["novelty"]
    (saved / "trail.json").write_text(json.dumps({**values, "format_version": 2}))
    assert manifest.decoding.novelty == 0
    assert artefact.load(saved).manifest.decoding == manifest.decoding


def test_the_probe_is_had_without_importing_transformers(saved: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trail.predict import artefact, probe, refine\n"
        f"path = Path({str(saved)!r}); artefact.load_probe(path, artefact.read_manifest(path))\n"
        "assert 'torch' in sys.modules; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_manifest_is_read_without_importing_torch(saved: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trail.predict.manifest import read_manifest\n"
        f"read_manifest(Path({str(saved)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
