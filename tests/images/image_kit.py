"""What the tests of images share: the modules of images/, Dockerfiles, and environments to install into."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
ROLES = ("sidecar", "engine", "operator")
INSTALLED = ("sidecar", "operator")

# They are scripts: each finds the others beside it.
sys.path.insert(0, str(IMAGES))


def dockerfile(role: str) -> list[str]:
    """Its instructions, a line each."""
    text = (IMAGES / role / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def last_stage(role: str) -> list[str]:
    """The instructions of what is shipped."""
    lines = dockerfile(role)
    return lines[max(index for index, line in enumerate(lines) if line.startswith("FROM ")) :]


def make_environment(directory: Path, base: str | None = None) -> Path:
    """A virtual environment without pip, as in the Dockerfiles, of this Python or of `base`; its Python."""
    if base is None:
        venv.create(directory, with_pip=False, symlinks=True)
    else:
        subprocess.run([base, "-m", "venv", "--without-pip", directory], check=True)
    return directory / "bin/python"


def install(role: str, python: Path, *more: str, bill: Path | None = None, index: str = "") -> None:
    """The image's own steps."""
    command = ["sh", str(IMAGES / "install.sh"), role, str(python), *more]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    clean |= {"BILL": str(bill or ""), "TORCH_INDEX": index}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, timeout=500)
    if done.returncode and "Temporary failure in name resolution" in done.stderr:
        pytest.skip("packages cannot be fetched here")
    assert done.returncode == 0, done.stderr[-2000:]


def run_in(python: Path, *words: str | Path) -> str:
    """What a program of the environment prints; it sees its environment alone and leaves nothing there."""
    done = subprocess.run(
        [str(python.with_name(str(words[0]))), *map(str, words[1:])],
        capture_output=True, text=True, check=False, cwd=python.parents[2],
        env={"HOME": str(python.parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def pip_check(python: Path) -> list[str]:
    """What `pip check` has against an environment."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "check"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(pip, capture_output=True, text=True, check=False, env=env).stdout
    return [line for line in said.splitlines() if "No broken requirements" not in line]
