"""Images: what their Dockerfiles promise, and their own installation steps in a clean environment."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
ROLES = ("sidecar", "engine", "operator")
STARTS = {
    "sidecar": [["trail", "--help"], ["trail", "sidecar", "--help"], ["trail-supervisor", "--help"]],
    "operator": [
        ["python", "-m", f"trail_operator{part}", "--help"]
        for part in ("", ".certificates", ".redis_secret", ".uninstall", ".installed")
    ],
}


def dockerfile(role: str) -> list[str]:
    text = (IMAGES / role / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("role", ROLES)
def test_bases_are_pinned_and_nobody_is_root(role: str) -> None:
    lines = dockerfile(role)
    bases = [line.split("=", 1)[1] for line in lines if line.startswith("ARG ")]
    assert bases
    assert all(re.fullmatch(r"[a-z./-]+:\d+\.\d+\.\d+[-a-z]*", base) for base in bases)
    stages = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(stages) == 2
    last = lines[stages[-1] :]
    assert "USER 65532:65532" in last
    assert not [line for line in last if line.startswith("RUN")]
    assert any(line.startswith("ENTRYPOINT [") for line in last)


@pytest.mark.parametrize("role", ROLES)
def test_the_build_context_holds_what_the_steps_read(role: str) -> None:
    kept = {line[1:] for line in (IMAGES / role / "Dockerfile.dockerignore").read_text().splitlines()
            if line.startswith("!")}  # fmt: skip
    assert {
        "images",
        "operator",
        "sidecar",
        "pyproject.toml",
        "requirements.lock",
        "README.md",
        "LICENSE",
    } == kept
    assert all((ROOT / name).exists() for name in kept)


def test_requirements_are_those_of_the_lock() -> None:
    done = subprocess.run(
        [sys.executable, IMAGES / "lock.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


FOREIGN = {
    "operator": {"torch", "vllm", "transformers", "grpcio"},
    "sidecar": {"vllm", "kopf", "kubernetes-asyncio"},
}


@pytest.mark.parametrize("role", FOREIGN)
def test_a_role_installs_nothing_of_the_others(role: str) -> None:
    lines = (IMAGES / role / "requirements.txt").read_text().splitlines()
    names = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert len(names) >= 15
    assert not names & FOREIGN[role]


def make_environment(directory: Path) -> Path:
    """A clean virtual environment; its Python."""
    venv.create(directory, with_pip=True)
    return directory / "bin/python"


def install(role: str, python: Path, *more: str) -> None:
    command = ["sh", str(IMAGES / "install.sh"), role, str(python), *more]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, timeout=300)
    if done.returncode and "Temporary failure in name resolution" in done.stderr:
        pytest.skip("packages cannot be fetched here")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("role", STARTS)
def test_entry_points_start_in_a_clean_environment(role: str, tmp_path: Path) -> None:
    """The sidecar without torch, which is in a layer of its own and which no --help needs."""
    python = make_environment(tmp_path / "venv")
    install(role, python)
    for words in STARTS[role]:
        done = subprocess.run(
            [str(python.with_name(words[0])), *words[1:]],
            capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)}, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout
    # Nothing is missing among the packages but torch and what belongs to it.
    check = subprocess.run([str(python), "-m", "pip", "check"], capture_output=True, text=True, check=False)
    missing = [line for line in check.stdout.splitlines() if "torch" not in line and "No broken" not in line]
    assert missing == []


@pytest.mark.slow
def test_the_plugin_is_found_where_it_is_copied_to(tmp_path: Path) -> None:
    """By the init container's copy, through PYTHONPATH alone, with what vLLM has already."""
    copied = tmp_path / "plugin"
    install("engine", make_environment(tmp_path / "venv"), str(copied))
    assert sorted(p.name for p in (copied / "trail").iterdir() if p.is_dir()) == ["engine", "policy", "wire"]
    assert not [p for p in copied.rglob("*") if p.suffix in (".so", ".pyc")]
    script = (
        "import json, importlib.metadata as m, trail.engine.plugin as p;"
        "(e,) = [e for e in m.entry_points(group='vllm.general_plugins') if e.name == 'trail'];"
        "e.load()(); print(json.dumps([p.__file__, e.dist.name]))"
    )
    # In front of the packages here, among which an editable copy of ours may be.
    env = {"PYTHONPATH": str(copied), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    file, name = json.loads(done.stdout.splitlines()[-1])
    assert file.startswith(str(copied))
    assert name == "trail-serving"
