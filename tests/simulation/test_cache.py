"""A kept result is found again by the same code with the same inputs, and by nothing else."""

import importlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from trail.simulation.cache import Cache, code_digest, sources


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose `run` imports three deep: a module, within a function, by a name in a string."""
    root = tmp_path / "experiment"
    (root / "below").mkdir(parents=True)
    for name, source in {
        "__init__": "",
        "run": "from experiment.below import first",
        "below/__init__": "",
        "below/first": "def work():\n    from . import second",
        "below/second": "import numpy\nchild = 'experiment.third.Worker'",
        "third": "",
        "alone": "",
    }.items():
        (root / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    code_digest.cache_clear()
    return root


def key(tmp_path: Path) -> str:
    code_digest.cache_clear()
    return Cache(tmp_path / "kept", "experiment.run").key()


@pytest.mark.parametrize("changed", ["run", "below/__init__", "below/first", "below/second", "third"])
def test_a_change_of_what_is_imported_at_any_depth_is_another_key(
    project: Path, tmp_path: Path, changed: str
) -> None:
    before = key(tmp_path)
    with (project / f"{changed}.py").open("a") as file:
        file.write("\nx = 1\n")
    assert key(tmp_path) != before


def test_a_change_of_what_is_not_imported_is_none(project: Path, tmp_path: Path) -> None:
    before = key(tmp_path)
    (project / "alone.py").write_text("x = 1\n")
    (project / "figures.json").write_text("{}")
    assert key(tmp_path) == before


def test_the_sources_of_a_sweep_are_the_simulator_and_the_policies_not_the_pages() -> None:
    found = sources("trail.simulation.sweep")
    assert {"trail.simulation.engine.ranked", "trail.policy.decide", "trail.bench.arrivals"} <= found.keys()
    assert not {"trail.simulation.report", "trail.report.page", "trail.sidecar.sidecar"} & found.keys()
    constant = sources("benchmarks.control.constant")
    assert "trail.policy.controller" not in constant, "a constant c is not simulated again for the controller"
    assert "trail.policy.controller" in sources("benchmarks.control.regret")


def test_a_module_without_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sys has no source"):
        Cache(tmp_path, "sys")


@dataclass(frozen=True)
class Inputs:
    values: np.ndarray
    name: str
    file: Path


def test_inputs_are_told_apart_by_their_content(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept", "trail.simulation.cache")
    file, other, copy = (tmp_path / name for name in ("a", "b", "c"))
    for path, text in ((file, "same"), (other, "other")):
        path.write_text(text)
    copy.mkdir()
    (copy / "a").write_text("same")
    given = Inputs(np.arange(3), "x", file)
    keys = [
        cache.key(inputs)
        for inputs in (
            given,
            replace(given, values=np.arange(3.0)),
            replace(given, values=np.arange(3)[None]),
            replace(given, name="y"),
            replace(given, file=other),
            [given],
            {"x": given},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert cache.key(["a", "b"]) != cache.key(["ab"]) != cache.key("ab")
    assert cache.key(replace(given, values=np.arange(3))) == keys[0]
    assert cache.key(copy) == cache.key(file), "a directory is the files in it"
    with pytest.raises(FileNotFoundError):
        cache.key(tmp_path / "none")


def test_results_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "trail.simulation.cache")
    assert cache.read(cache.key(1)) is None
    cache.write(cache.key(1), {"found": [1.5, None]})
    assert Cache(tmp_path, "trail.simulation.cache").read(cache.key(1)) == {"found": [1.5, None]}
    (file,) = tmp_path.iterdir()
    for damage in ('{"found', "[1]"):
        file.write_text(damage)
        assert cache.read(cache.key(1)) is None
