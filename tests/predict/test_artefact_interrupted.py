"""A save that fails or is killed leaves the artefact that was there, whole."""

import ctypes
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trail.predict import artefact
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor
from trail.predict.storage import replacing_directory

VECTORS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def test_an_error_half_way_leaves_the_old_one(
    saved: Path,
    manifest: Manifest,
    probe: Probe,
    prompt_predictor: PromptPredictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_space(self: PromptPredictor, directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PromptPredictor, "save", no_space)
    other = Probe.untrained(8, probe.bins, probe.layer, units=4, seed=9)
    with pytest.raises(OSError, match="No space left"):
        artefact.save(saved, manifest, other, prompt_predictor)
    monkeypatch.undo()
    np.testing.assert_array_equal(artefact.load(saved).probe.predict(VECTORS), probe.predict(VECTORS))
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model", "predictor"]


def test_metrics_that_are_no_json_leave_the_old_one(saved: Path, manifest: Manifest, probe: Probe) -> None:
    with pytest.raises(ValueError, match="JSON"):
        artefact.save(saved, replace(manifest, metrics={"mae": float("nan")}), probe)
    assert artefact.load(saved).prompt is not None


# The process is killed where the probe's weights are written and the manifest is not.
KILLED = """
import os, signal, sys
from pathlib import Path
from trail.predict import artefact, storage

path = Path(sys.argv[1])
loaded = artefact.load(path)
loaded.prompt.save = lambda directory: os.kill(os.getpid(), signal.SIGKILL)
artefact.save(path, loaded.manifest, loaded.probe, loaded.prompt)
"""


def test_a_kill_half_way_leaves_the_old_one(saved: Path, probe: Probe) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED, str(saved)], check=False)
    assert result.returncode == -signal.SIGKILL
    leftovers = [path for path in saved.parent.iterdir() if path.name not in ("model", "predictor")]
    assert [sorted(file.name for file in path.iterdir()) for path in leftovers] == [["probe.safetensors"]]
    np.testing.assert_array_equal(artefact.load(saved).probe.predict(VECTORS), probe.predict(VECTORS))


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system whose C library cannot exchange two names."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **kwargs: SimpleNamespace())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").touch()
    return tmp_path / "target"


def test_through_a_link_the_directory_behind_it_is_replaced(old: Path) -> None:
    link = old.parent / "link"
    link.symlink_to(old)
    with replacing_directory(link) as directory:
        (directory / "new").touch()
    assert link.is_symlink()
    assert [path.name for path in old.iterdir()] == ["new"]
    assert sorted(path.name for path in old.parent.iterdir()) == ["link", "target"]


@pytest.mark.usefixtures("no_exchange")
def test_without_the_exchange_call_two_renames_replace_it(old: Path) -> None:
    with replacing_directory(old) as directory:
        (directory / "new").touch()
    assert [path.name for path in old.iterdir()] == ["new"]
    assert [path.name for path in old.parent.iterdir()] == ["target"]


@pytest.mark.usefixtures("no_exchange")
def test_when_the_second_rename_fails_the_first_is_undone(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename
    calls = []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"), replacing_directory(old) as directory:
        (directory / "new").touch()
    assert len(calls) == 3
    assert [path.name for path in old.iterdir()] == ["old"]
    assert [path.name for path in old.parent.iterdir()] == ["target"]
