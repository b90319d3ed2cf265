"""What images install: `python images/lock.py` writes images/<role>/requirements.txt and images/builder.txt.

The closure of the role's extra on every Python of `closure.MINORS`, in the versions of requirements.lock, so
that images run what the tests ran. The builder's is what images/install.sh builds and describes with. torch
itself stands apart: its CPU build comes from an index of its own. What it needs does not.
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closure import closure, faults, of_extra, pythons, read_pins
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PLACES = {
    "sidecar": ROOT / "images/sidecar/requirements.txt",
    "operator": ROOT / "images/operator/requirements.txt",
    "builder": ROOT / "images/builder.txt",
}
APART = {"torch"}
DESCRIBES = "cyclonedx-bom"


def roots(role: str, pyproject: Mapping[str, Any]) -> list[Requirement]:
    """What a role asks for itself."""
    if role != "builder":
        return of_extra(role, pyproject["project"])
    describes = [r for r in of_extra("dev", pyproject["project"]) if canonicalize_name(r.name) == DESCRIBES]
    return [*map(Requirement, pyproject["build-system"]["requires"]), *describes]


def lines(role: str, pyproject: Path, lock: Path) -> list[str]:
    """The role's part of the lock, markers included. Exits with a sentence where the lock lacks something."""
    pins, names, wrong = read_pins(lock), set[str](), list[str]()
    asked = roots(role, tomllib.loads(pyproject.read_text()))
    for python in pythons():
        needs, unknown = closure(asked, python)
        # A pin with a marker is of another Python; images/complete.py saw that it needs nothing itself.
        if absent := sorted(name for name in unknown if name in pins and pins[name].marker is None):
            raise SystemExit(
                f"{', '.join(absent)} is not installed, so what it needs is unknown;"
                " make the environment first: make env"
            )
        wrong += faults(needs, pins, python)
        names |= set(needs)
    if wrong:
        raise SystemExit(f"{lock} lacks {'; '.join(dict.fromkeys(wrong))}; run make lock")
    return [str(pins[name]).replace(";", " ;") for name in sorted(names - APART)]


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
    for role, place in PLACES.items():
        wanted = text(role, args.pyproject, args.lock)
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
