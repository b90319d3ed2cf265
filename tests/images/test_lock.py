"""The lock: what every supported Python needs is pinned, whichever Python made it."""

import re
import tomllib

import pytest
from image_kit import IMAGES, INSTALLED, ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import closure  # isort: skip
import complete  # isort: skip

LOCK = ROOT / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def everything() -> list[Requirement]:
    """The requirements of the whole development environment."""
    pinned = [name for name, pin in closure.read_pins(LOCK).items() if pin.marker is None]
    return [*closure.of_extra("dev", PROJECT), *map(Requirement, pinned)]


def test_the_pythons_are_those_of_the_project_and_every_stretch_between_markers() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert all(supported.contains(python) for python in closure.pythons())
    assert not supported.contains("3.10.20")
    assert {"3.11.0", "3.11.3", "3.12.0", "3.13.0", "3.14.0"} <= set(closure.pythons())


@pytest.mark.parametrize("python", closure.pythons())
def test_the_lock_holds_what_a_python_needs(python: str) -> None:
    needs, _ = closure.closure(everything(), python)
    assert len(needs) > 150
    assert closure.faults(needs, closure.read_pins(LOCK), python) == []


@pytest.mark.parametrize("python", closure.pythons())
@pytest.mark.parametrize("role", INSTALLED)
def test_an_image_holds_what_a_python_needs(role: str, python: str) -> None:
    needs, _ = closure.closure(closure.of_extra(role, PROJECT), python)
    pins = closure.read_pins(IMAGES / role / "requirements.txt")
    assert [fault for fault in closure.faults(needs, pins, python) if not fault.startswith("torch ")] == []
    assert ("async-timeout" in needs) == (python in ("3.11.0", "3.11.1"))


def test_the_closure_goes_through_torch_and_leaves_gpus_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = closure._requires
    cuda = [Requirement(text) for text in ("nvidia-cublas>=1", "cuda-bindings", "triton==3")]
    monkeypatch.setattr(closure, "_requires", lambda name: (*(real(name) or ()), *(cuda * (name == "torch"))))
    needs, unknown = closure.closure(closure.of_extra("sidecar", PROJECT), "3.12.0")
    assert {"torch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "setuptools"} <= set(needs)
    assert not [name for name in needs if re.match("triton|nvidia|cuda", name)]
    assert unknown == frozenset()


def test_what_other_pythons_need_is_added_with_a_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made on any Python: without the pin, the same line comes back."""
    lines = [line for line in LOCK.read_text().splitlines() if line.startswith("async-timeout")]
    assert lines == ['async-timeout==5.0.1 ; python_full_version < "3.11.3"']
    pins = closure.read_pins(LOCK)
    del pins["async-timeout"]
    asked: list[str] = []

    def look_up(name: str, needs: list[closure.Need]) -> tuple[str, list[Requirement]]:
        asked.extend(f"{name}{need.requirement.specifier}" for need in needs)
        return "5.0.1", []

    monkeypatch.setattr(complete, "look_up", look_up)
    assert complete.more(everything(), pins) == lines
    assert set(asked) == {"async-timeout>=4.0.3"}


def test_a_package_of_another_python_that_needs_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = closure.read_pins(LOCK)
    del pins["async-timeout"]
    monkeypatch.setattr(complete, "look_up", lambda name, needs: ("5.0.1", [Requirement("more>=1")]))
    with pytest.raises(SystemExit, match=r"needs more>=1 itself; pin them by hand"):
        complete.more(everything(), pins)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("ab", 'python_full_version < "c"'),
        ("bc", 'python_full_version >= "b" and python_full_version < "d"'),
        ("d", 'python_full_version >= "d"'),
        ("ad", 'python_full_version < "b" or python_full_version >= "d"'),
        ("abcd", ""),
    ],
)
def test_a_marker_holds_where_something_is_needed(where: str, text: str) -> None:
    assert complete.marker(list(where), list("abcd")) == text


def test_a_pin_that_some_python_cannot_use_is_a_fault() -> None:
    need = closure.Need(Requirement("setuptools>=77"), "torch")
    assert closure.faults({"setuptools": [need]}, {}, "3.12.0") == [
        "setuptools (torch needs it on Python 3.12.0)"
    ]
    old = {"setuptools": Requirement("setuptools==65.5")}
    (fault,) = closure.faults({"setuptools": [need]}, old, "3.12.0")
    assert fault == "setuptools>=77 (torch needs it on Python 3.12.0, setuptools==65.5 is pinned)"
