"""Images: what their Dockerfiles promise, and their own installation steps in a clean environment."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from image_kit import (
    IMAGES,
    INSTALLED,
    ROLES,
    ROOT,
    dockerfile,
    install,
    last_stage,
    make_environment,
    pip_check,
    run_in,
)

STARTS = {
    # `trail top`, `explain` and `inspect` are looked at inside the container.
    "sidecar": [
        ["trail", "--help"],
        *(["trail", command, "--help"] for command in ("sidecar", "top", "explain", "inspect")),
        ["trail-supervisor", "--help"],
    ],
    "operator": [
        ["python", "-m", f"trail_operator{part}", "--help"]
        for part in (
            "",
            *(f".jobs.{job}" for job in ("certificates", "redis_secret", "uninstall", "installed")),
        )
    ],
}
FOREIGN = {
    "operator": {"torch", "vllm", "transformers", "grpcio", "numpy", "setuptools", "pip"},
    "sidecar": {"vllm", "kopf", "kubernetes-asyncio", "pip", "triton"},
}
LABELS = ("title", "description", "version", "revision", "source", "licenses")
NOT_INSTALLED = re.compile(r"\S+ \S+ requires (torch|triton), which is not installed\.")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
DEBIAN = "/usr/bin/python3"


def version_of(python: str) -> str:
    """Its version, or nothing where there is none."""
    if not Path(python).exists():
        return ""
    said = subprocess.run([python, "-V"], capture_output=True, text=True, check=False).stdout
    return said.removeprefix("Python ").strip()


@pytest.mark.parametrize("role", ROLES)
def test_bases_are_pinned_and_nobody_is_root(role: str) -> None:
    lines = dockerfile(role)
    bases = dict(line[4:].split("=", 1) for line in lines if re.match(r"ARG (PYTHON|COPIER)=", line))
    assert set(bases) == ({"PYTHON", "COPIER"} if role == "engine" else {"PYTHON"})
    tag, digest = r"[a-z./-]+:\d+\.\d+\.\d+[-a-z]*", r"(@sha256:[0-9a-f]{64})?"
    assert all(re.fullmatch(tag + digest, base) for base in bases.values())
    assert len([line for line in lines if line.startswith("FROM ")]) == 2
    last = last_stage(role)
    assert "USER 65532:65532" in last
    assert any(line.startswith("ENTRYPOINT [") for line in last)
    # Nothing is made in what is shipped; only the base's pip is taken out of it.
    assert [line[:11] for line in last if line.startswith("RUN")] == ["RUN rm -rf "] * (role == "sidecar")


@pytest.mark.parametrize("role", ROLES)
def test_mirrors_are_build_arguments_and_no_index_stands_elsewhere(role: str) -> None:
    lines = dockerfile(role)
    assert "ARG PIP_INDEX_URL" in lines
    assert (f"ARG TORCH_INDEX={TORCH_INDEX}" in lines) == (role == "sidecar")
    assert not [line for line in lines if "--index-url" in line]
    assert "http" not in (IMAGES / "install.sh").read_text()
    assert all(line in ("FROM ${PYTHON} AS build", "FROM ${PYTHON}", "FROM ${COPIER}", "FROM scratch")
               for line in lines if line.startswith("FROM"))  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_labels_say_what_an_image_is(role: str) -> None:
    (label,) = [line for line in last_stage(role) if line.startswith("LABEL ")]
    said = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=\"([^\"]+)\"", label))
    assert tuple(said) == LABELS
    assert (said["version"], said["revision"], said["source"]) == ("${VERSION}", "${REVISION}", "${SOURCE}")
    assert said["licenses"] == "Apache-2.0"
    assert {"ARG VERSION=dev", "ARG REVISION=unknown", "ARG SOURCE"} <= set(last_stage(role))


@pytest.mark.parametrize("role", ROLES)
def test_the_build_context_holds_what_the_steps_read(role: str) -> None:
    kept = {line[1:] for line in (IMAGES / role / "Dockerfile.dockerignore").read_text().splitlines()
            if line.startswith("!")}  # fmt: skip
    copied = [line.split()[1:-1] for line in dockerfile(role) if re.match(r"COPY (?!--from)", line)]
    assert {name.split("/")[0] for names in copied for name in names} == kept
    assert all((ROOT / name).exists() for name in kept)


def test_requirements_are_those_of_the_lock() -> None:
    done = subprocess.run(
        [sys.executable, IMAGES / "lock.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", FOREIGN)
def test_a_role_installs_nothing_of_the_others(role: str) -> None:
    lines = (IMAGES / role / "requirements.txt").read_text().splitlines()
    names = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert len(names) >= 15
    assert not names & FOREIGN[role]
    assert not [name for name in names if name.startswith(("nvidia", "cuda"))]


WITHOUT_NUMPY = """
import importlib, json, pkgutil, re, runpy, sys
from pathlib import Path

sys.modules["numpy"] = None  # an import of it raises ImportError
import trail_operator
from operator_kit import admit, golden_view, make_pod
from trail.policy.controller import Objective, Pressure, decide, initial_state

for module in pkgutil.walk_packages(trail_operator.__path__, "trail_operator."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
pod = make_pod()
assert admit(pod, golden_view(native=True)) != pod
state = initial_state(Objective())
full = Pressure(10.0, 30.0, 16.0, 0.97, 4.0, 900.0, 300.0, 2.0, 0.2, 300.0, 200.0, 0.0, 3.0, 0.4)
for _ in range(10):
    state = decide(full, state, Objective()).state
for part in sys.argv[1:]:
    sys.argv[1:] = ["--help"]
    try:
        runpy.run_module(f"trail_operator{part}", run_name="__main__")
    except SystemExit as end:
        assert not end.code, part
# Nor inside a function: nothing of ours that is loaded so much as names it.
ours = [m.__file__ for name, m in sys.modules.items() if re.match(r"trail(_operator)?\\b", name)]
assert len(ours) > 30
print(json.dumps([file for file in ours if re.search(r"(import|from) numpy", Path(file).read_text())]))
"""


def test_the_operator_decides_without_numpy() -> None:
    parts = [words[2].removeprefix("trail_operator") for words in STARTS["operator"]]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests/operator")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_NUMPY, *parts],
        capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert done.stdout.count("usage:") == len(parts)


def check_role(role: str, python: Path, tmp_path: Path) -> None:
    """A role's steps in a clean environment."""
    bill = tmp_path / "doc/sbom.cdx.json"
    install(role, python, bill=bill)
    check_installed(role, python, bill)


def check_installed(role: str, python: Path, bill: Path) -> None:
    """Everything starts, nothing is missing but what stands apart."""
    for words in STARTS[role]:
        assert "usage:" in run_in(python, *words)
    run_in(python, "python", "-c", "import redis.asyncio")
    assert [line for line in pip_check(python) if not NOT_INSTALLED.fullmatch(line)] == []
    found = json.loads(bill.read_text())
    described = {component["name"].lower().replace("_", "-") for component in found["components"]}
    lines = (IMAGES / role / "requirements.txt").read_text().splitlines()
    names = {
        line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line and ";" not in line
    }
    assert found["metadata"]["component"]["name"] == "trail-serving"
    assert names <= described
    assert not described & {"pip", "hatchling", "cyclonedx-bom"}


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Its clean environment's Python, and its bill of materials."""
    directory = tmp_path_factory.mktemp("operator")
    python, bill = make_environment(directory / "venv"), directory / "doc/sbom.cdx.json"
    install("operator", python, bill=bill)
    return python, bill


@pytest.mark.slow
def test_the_operator_starts_in_a_clean_environment(operator: tuple[Path, Path]) -> None:
    python, bill = operator
    check_installed("operator", python, bill)
    assert pip_check(python) == []
    (site,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    assert not [
        p for p in site.rglob("*") if p.name in ("__pycache__", "tests", "pip", "setuptools", "numpy")
    ]
    assert sorted(p.name for p in (site / "trail").iterdir() if p.is_dir()) == ["policy", "wire"]


@pytest.mark.slow
def test_the_sidecar_starts_and_loads_its_prompt_predictor_in_a_clean_environment(tmp_path: Path) -> None:
    """With torch and nothing else that the image has not: what torch needs is the role's to install."""
    python = make_environment(tmp_path / "venv")
    try:
        install("torch", python)
    except AssertionError:
        install("torch", python, index=TORCH_INDEX)
    check_role("sidecar", python, tmp_path)
    assert pip_check(python) == []
    shutil.copy(IMAGES / "sidecar/warm.py", tmp_path)
    assert "prompt True" in run_in(python, "python", tmp_path / "warm.py")
    names = [p.name for p in (tmp_path / "venv/lib").glob("python3*/site-packages/*")]
    assert not [name for name in names if name.startswith(("nvidia", "triton", "cuda"))]


@pytest.mark.slow
@pytest.mark.parametrize("role", INSTALLED)
def test_a_python_that_needs_more_than_this_one_starts_too(role: str, tmp_path: Path) -> None:
    """Debian 12's 3.11.2, on which redis needs async-timeout."""
    version = version_of(DEBIAN)
    if not re.fullmatch(r"3\.11\.[0-2]", version):
        pytest.skip(f"{DEBIAN} is {version or 'not there'}, and no Python before 3.11.3")
    if subprocess.run([DEBIAN, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
        pytest.skip(f"{DEBIAN} makes no environments; apt-get install python3-venv")
    check_role(role, make_environment(tmp_path / "venv", DEBIAN), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("dpkg-query") or os.geteuid() != 0, reason="needs Debian and root")
def test_the_operators_root_file_system_is_enough_for_it(operator: tuple[Path, Path], tmp_path: Path) -> None:
    python, root = operator[0], tmp_path / "root"
    run_in(python, "python", IMAGES / "operator/rootfs.py", python.parents[1], root)
    for words in STARTS["operator"]:
        inside = ["chroot", root, python, *words[1:]]
        done = subprocess.run(inside, capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin"})
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout
    script = (
        "import ssl, redis.asyncio, aiohttp; print(ssl.create_default_context().cert_store_stats()['x509'])"
    )
    inside = ["chroot", root, python, "-c", script]
    certificates = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
    assert int(certificates) > 0
    assert not [p for name in ("sh", "bash", "apt", "dpkg", "perl") for p in root.rglob(f"bin/{name}")]
    known = (root / "var/lib/dpkg/status").read_text()
    assert "Package: libc6\n" in known
    assert "Package: apt\n" not in known


@pytest.mark.slow
def test_the_plugin_is_found_where_it_is_copied_to(tmp_path: Path) -> None:
    """By the init container's copy, through PYTHONPATH alone, with what vLLM has already."""
    copied, bill = tmp_path / "plugin", tmp_path / "sbom.cdx.json"
    install("engine", make_environment(tmp_path / "venv"), str(copied), bill=bill)
    assert sorted(p.name for p in (copied / "trail").iterdir() if p.is_dir()) == ["engine", "policy", "wire"]
    assert not [p for p in copied.rglob("*") if p.suffix in (".so", ".pyc")]
    found = json.loads(bill.read_text())
    assert found["metadata"]["component"]["name"] == "trail-serving"
    assert found.get("components", []) == []
    script = (
        "import json, importlib.metadata as m, trail.engine.start.plugin as p;"
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


def test_a_bill_names_the_interpreter_and_debians_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bill

    (place := tmp_path / "bill.json").write_text(json.dumps({"bomFormat": "CycloneDX", "components": []}))
    (status := tmp_path / "status").write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1:1\n"
    )
    monkeypatch.setattr(sys, "argv", ["bill.py", str(place), str(status)])
    main: Callable[[], int] = bill.main
    assert main() == 0
    python, libc = json.loads(place.read_text())["components"]
    assert (python["name"], python["version"]) == ("python", sys.version.split()[0])
    assert libc["purl"].startswith("pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64")
