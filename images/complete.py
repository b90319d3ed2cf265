"""Adds to a lock what other Pythons than the running one need: `python images/complete.py < pins > lock`.

`pip freeze` names what the running Python needs. What only other Pythons of `closure.MINORS` need is
looked up with pip and pinned with a marker. make lock runs this in the environment that it has just resolved.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from closure import OURS, Need, closure, faults, holds, of_extra, pythons, read_pins
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def marker(where: Collection[str], every: Sequence[str]) -> str:
    """The marker that holds on the Pythons `where` among `every`, which are in order."""
    parts, start = [], None
    for index, python in enumerate([*every, None]):
        inside = python in where
        if inside and start is None:
            start = index
        elif not inside and start is not None:
            low = [f'python_full_version >= "{every[start]}"'] if start else []
            high = [f'python_full_version < "{python}"'] if python else []
            parts.append(" and ".join(low + high))
            start = None
    return " or ".join(parts)


def look_up(name: str, needs: Sequence[Need]) -> tuple[str, list[Requirement]]:
    """The newest version that satisfies `needs`, and what it needs itself. Asks pip."""
    specifier = SpecifierSet(
        ",".join(str(need.requirement.specifier) for need in needs if need.requirement.specifier)
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--quiet"]
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [*pip, "--no-deps", "--ignore-installed", "--report", str(report), f"{name}{specifier}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"pip finds no {name}{specifier}: {done.stderr.strip()[-400:]}")
        metadata = json.loads(report.read_text())["install"][0]["metadata"]
    return metadata["version"], [Requirement(text) for text in metadata.get("requires_dist", [])]


def missing(
    roots: Sequence[Requirement], pins: Mapping[str, Requirement]
) -> dict[str, dict[str, list[Need]]]:
    """What is not pinned: by name, for each Python that needs it, who does."""
    out: dict[str, dict[str, list[Need]]] = {}
    for python in pythons():
        needs, _ = closure(roots, python)
        for name in needs.keys() - pins.keys():
            out.setdefault(name, {})[python] = needs[name]
    return out


def more(roots: Sequence[Requirement], pins: Mapping[str, Requirement]) -> list[str]:
    """A pin, with its marker, for all that is missing."""
    out = []
    for name, found in sorted(missing(roots, pins).items()):
        version, itself = look_up(name, [need for needs in found.values() for need in needs])
        # images/lock.py reads needs from what is installed, which this is not.
        if deeper := [r for r in itself if any(holds(r, python) for python in found)]:
            raise SystemExit(
                f"{name}, for Python {', '.join(found)} alone, needs {', '.join(map(str, deeper))} itself;"
                " pin them by hand and teach images/closure.py to know"
            )
        text = marker(found.keys(), pythons())
        out.append(f"{name}=={version} ; {text}" if text else f"{name}=={version}")
    return out


def main() -> int:
    """Prints the whole lock. Exits with a sentence where a pin does not serve some Python."""
    text = sys.stdin.read()
    with tempfile.TemporaryDirectory() as directory:
        (lock := Path(directory) / "lock").write_text(text)
        pins = read_pins(lock)
        roots = [*of_extra("dev", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])]
        roots += [
            Requirement(name)
            for d in distributions()
            if (name := canonicalize_name(d.name)) not in (OURS, "pip")
        ]
        lines = sorted([*text.splitlines(), *more(roots, pins)], key=str.lower)
        lock.write_text("\n".join(lines))
        pins = read_pins(lock)
    wrong = [fault for python in pythons() for fault in faults(closure(roots, python)[0], pins, python)]
    if wrong:
        raise SystemExit(f"one lock cannot serve every Python: {'; '.join(dict.fromkeys(wrong))}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
