"""What packages need, on every Python that the project runs on, by the metadata of what is installed here.

A marker that holds on another Python than the running one counts: a lock made on 3.11.7 serves 3.11.0 too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

MINORS = ("3.11", "3.12", "3.13", "3.14")
"""Every pin of the images has wheels for these; vLLM's own metadata ends at 3.14."""
OURS = "trail-serving"
GPU = re.compile(r"triton|nvidia-.*|cuda-.*")
"""What torch's GPU builds add; nothing here runs them."""
VLLM_EXTRAS = frozenset({"torchaudio", "torchvision", "torchcodec"})
"""vLLM asks for them, serves text without them, and they would bring a CUDA build of torch."""
_FULL_VERSION = re.compile(r"python_full_version\s*[<>=!~]+\s*['\"]([0-9.]+)['\"]")


@dataclass(frozen=True)
class Need:
    """A requirement and who has it."""

    requirement: Requirement
    of: str


def environment(python: str, extra: str = "") -> Environment:
    """The environment of markers on CPython `python` (`3.11.2`) under Linux x86-64."""
    return (
        default_environment()
        | {  # type: ignore[return-value]
            "python_version": ".".join(python.split(".")[:2]),
            "python_full_version": python,
            "implementation_version": python,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "extra": extra,
        }
    )


def holds(requirement: Requirement, python: str, extras: Iterable[str] = ()) -> bool:
    """Whether a requirement's marker holds on `python`, with any of `extras` asked for."""
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate(dict(environment(python, extra)))  # type: ignore[arg-type]
        for extra in ("", *extras)
    )


@cache
def pythons() -> tuple[str, ...]:
    """A release of every stretch within which no marker of an installed package turns, oldest first."""
    found = {f"{minor}.0" for minor in MINORS}
    for text in (text for d in distributions() for text in d.requires or []):
        for version in map(Version, _FULL_VERSION.findall(text)):
            # `<= X` and `> X` turn after X.
            found |= {f"{version.major}.{version.minor}.{version.micro + more}" for more in (0, 1)}
    kept = [version for version in found if version.rpartition(".")[0] in MINORS]
    return tuple(sorted(kept, key=Version))


@cache
def _requires(name: str) -> tuple[Requirement, ...] | None:
    try:
        return tuple(map(Requirement, distribution(name).requires or []))
    except PackageNotFoundError:
        return None


def closure(roots: Iterable[Requirement], python: str) -> tuple[dict[str, list[Need]], frozenset[str]]:
    """All packages that `roots` need on `python`, themselves included, with every requirement on each;
    and which of them are not installed here, so that what they need themselves is unknown."""
    needs: dict[str, list[Need]] = {}
    unknown: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Need(root, OURS) for root in roots if holds(root, python)]
    while waiting:
        need = waiting.pop()
        name, extras = canonicalize_name(need.requirement.name), frozenset(need.requirement.extras)
        if GPU.fullmatch(name) or name in VLLM_EXTRAS:
            continue
        needs.setdefault(name, []).append(need)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        requires = _requires(name)
        if requires is None:
            unknown.add(name)
            continue
        waiting += [Need(found, name) for found in requires if holds(found, python, extras)]
    return needs, frozenset(unknown)


def of_extra(role: str, project: Mapping[str, object]) -> list[Requirement]:
    """The requirements of one of our extras, those of other extras that it names included."""
    extras, base = project["optional-dependencies"], project["dependencies"]
    assert isinstance(extras, dict)  # noqa: S101 - for the type checker
    assert isinstance(base, list)  # noqa: S101 - for the type checker
    if role not in extras:
        raise SystemExit(f"pyproject.toml has no extra {role}")
    out: list[Requirement] = []
    for requirement in map(Requirement, [*base, *extras[role]]):
        if canonicalize_name(requirement.name) == OURS:
            for other in requirement.extras:
                out += of_extra(other, project)
        else:
            out.append(requirement)
    return out


def read_pins(lock: Path) -> dict[str, Requirement]:
    """The pins of a lock by name."""
    lines = [line.strip() for line in lock.read_text().splitlines()]
    found = [Requirement(line) for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found}


def faults(needs: Mapping[str, Sequence[Need]], pins: Mapping[str, Requirement], python: str) -> list[str]:
    """What of `needs` the pins do not give on `python`, a phrase each."""
    out = []
    for name, wanted in sorted(needs.items()):
        pin = pins.get(name)
        if pin is None or not holds(pin, python):
            out.append(f"{name} ({wanted[0].of} needs it on Python {python})")
            continue
        version = next(iter(pin.specifier)).version
        out += [
            f"{name}{need.requirement.specifier} ({need.of} needs it on Python {python}, {pin} is pinned)"
            for need in wanted
            if not need.requirement.specifier.contains(version, prereleases=True)
        ]
    return out
