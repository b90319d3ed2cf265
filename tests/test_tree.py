"""The plan of the house: few modules in a room, one name for one thing, and what is installed."""

import ast
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sidecar/trail", "operator/trail_operator", "benchmarks")
GENERATED = ROOT / "sidecar/trail/wire/v1"


def folders(*tops: str) -> Iterator[Path]:
    for top in tops:
        for folder in sorted({file.parent for file in (ROOT / top).rglob("*.py")}):
            if folder != GENERATED:
                yield folder


def rooms() -> Iterator[Path]:
    """Where a class has one name: each package below `trail` and `benchmarks`, the operator as a whole."""
    for package in PACKAGES:
        inner = [path for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()]
        yield from [ROOT / package] if package.startswith("operator") else inner


def test_a_folder_has_at_most_sixteen_modules() -> None:
    for folder in folders(*PACKAGES, "tests"):
        modules = {file.stem for file in folder.glob("*.py")} - {"__init__", "conftest"}
        assert len(modules) <= 16, folder


def test_a_package_says_what_happens_in_it() -> None:
    for folder in folders(*PACKAGES):
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


@pytest.mark.parametrize("room", list(rooms()), ids=lambda room: str(room.relative_to(ROOT)))
def test_a_class_has_a_name_of_its_own_in_its_room(room: Path) -> None:
    found = Counter(
        node.name
        for file in room.rglob("*.py")
        if GENERATED not in file.parents
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in found.items() if count > 1] == []


def test_experiments_and_tests_are_not_installed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"trail", "trail_operator"}
