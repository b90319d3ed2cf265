"""Installing the engine extra where vLLM lives changes none of vLLM's packages."""

import json
import subprocess
import sys
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def requirements_of(name: str) -> list[Requirement]:
    return [Requirement(text) for text in requires(name) or []]


def test_pip_would_install_trail_alone(tmp_path: Path) -> None:
    """`--no-index`: anything that were missing or had to change would fail the resolution."""
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
    pip += ["--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--report", str(report), f"{ROOT}[engine]"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = [item["metadata"]["name"] for item in json.loads(report.read_text())["install"]]
    assert names == ["trail-serving"]


@pytest.mark.parametrize(
    ("name", "oldest"), [("protobuf", "5.29.6"), ("grpcio", "1.63.2"), ("numpy", "1.26.0")]
)
def test_bounds_are_as_wide_as_vllms(name: str, oldest: str) -> None:
    """The oldest release that vLLM or its OTLP exporter accepts satisfies our bound; no upper bound."""
    ours = [
        found
        for found in requirements_of("trail-serving")
        if found.name == name and (found.marker is None or found.marker.evaluate({"extra": "engine"}))
    ]
    assert len(ours) == 1
    assert ours[0].specifier.contains(oldest)
    assert all(specifier.operator == ">=" for specifier in ours[0].specifier)


def test_the_entry_point_is_registered() -> None:
    points = distribution("trail-serving").entry_points
    assert [p.value for p in points if p.group == "vllm.general_plugins"] == [
        "trail.engine.start.plugin:register"
    ]


def test_the_lock_holds_no_cuda_build() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    names = {line.split("==")[0].lower() for line in lock if "==" in line}
    assert "torch==2.13.0+cpu" in lock
    assert not names & {"torchaudio", "torchvision", "torchcodec"}
    assert not [name for name in names if name.startswith(("nvidia", "cuda"))]
