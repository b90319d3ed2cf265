"""What each image installs: `python images/lock.py` writes images/<role>/requirements.txt.

The closure of the role's extra, in the versions of requirements.lock, so that images run what the tests ran.
torch stands apart: its CPU build comes from an index of its own.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ROLES = ("sidecar", "operator")
APART = {"torch", "triton"}
"""triton is torch's compiler for GPUs, which the sidecar has no use for."""
OURS = "trail-serving"


def extra(role: str, project: dict[str, object]) -> list[Requirement]:
    """The requirements of a role, those of other roles that it names included."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)  # noqa: S101 - for the type checker
    if role not in extras:
        raise SystemExit(f"pyproject.toml has no extra {role}")
    base = project["dependencies"]
    assert isinstance(base, list)  # noqa: S101 - for the type checker
    out: list[Requirement] = []
    for requirement in map(Requirement, [*base, *extras[role]]):
        if canonicalize_name(requirement.name) == OURS:
            for other in requirement.extras:
                out += extra(other, project)
        else:
            out.append(requirement)
    return out


def closure(roots: Iterable[Requirement]) -> set[str]:
    """Names of all packages that `roots` need here and now, themselves included. Reads the environment."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        if name in APART:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError as error:
            raise SystemExit(f"{name} is not installed; make the environment first: make env") from error
        for found in map(Requirement, needs):
            extras = ["", *requirement.extras]
            if found.marker is None or any(found.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(found)
    return {name for name, _ in seen} - APART


def lines(role: str, pyproject: Path, lock: Path) -> list[str]:
    """The role's part of the lock. Exits with a sentence where the lock lacks something."""
    pinned = {
        canonicalize_name(line.split("==")[0]): line
        for line in lock.read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    names = closure(extra(role, tomllib.loads(pyproject.read_text())["project"]))
    if missing := sorted(names - set(pinned)):
        raise SystemExit(f"{lock} lacks {', '.join(missing)}; run make lock")
    return [pinned[name] for name in sorted(names)]


def text(
    role: str, pyproject: Path = ROOT / "pyproject.toml", lock: Path = ROOT / "requirements.lock"
) -> str:
    """The file's contents."""
    return "\n".join(
        ["# Written by images/lock.py from requirements.lock", *lines(role, pyproject, lock), ""]
    )


def main() -> int:
    """0, or 1 where `--check` finds another file than would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    parser.add_argument("--pyproject", type=Path, default=ROOT / "pyproject.toml")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    args = parser.parse_args()
    stale = []
    for role in ROLES:
        place, wanted = ROOT / "images" / role / "requirements.txt", text(role, args.pyproject, args.lock)
        if place.exists() and place.read_text() == wanted:
            continue
        stale.append(str(place.relative_to(ROOT)))
        if not args.check:
            new = place.with_suffix(".new")
            new.write_text(wanted)
            new.replace(place)
    if args.check and stale:
        print(f"{', '.join(stale)} do not fit requirements.lock; run python images/lock.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
