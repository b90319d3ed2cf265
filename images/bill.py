"""Puts what is no Python package into an image's bill of materials: `python bill.py BILL [DPKG-STATUS]`.

cyclonedx-py lists an environment's packages. The interpreter and the base's Debian packages, which an image
holds as well, are added here. Standard library alone: it runs by the base's Python.
"""

import json
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Component = dict[str, object]


def debian(status: str, release: str) -> Iterator[Component]:
    """A component of each installed package in dpkg's own list."""
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][-A-Za-z]*): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name, version = fields["Package"], fields["Version"]
        where = f"arch={fields['Architecture']}&distro=debian-{release}"
        purl = f"pkg:deb/debian/{name}@{version.replace(':', '%3A').replace('+', '%2B')}?{where}"
        yield {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def python() -> Component:
    """The interpreter that runs this."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return {"type": "application", "name": "python", "version": version, "purl": purl, "bom-ref": purl}


def main() -> int:
    """0; the bill is replaced as a whole."""
    place, lists = Path(sys.argv[1]), sys.argv[2:]
    bill = json.loads(place.read_text())
    release = Path("/etc/debian_version")
    number = release.read_text().strip().partition(".")[0] if release.exists() else ""
    more = [python()]
    for name in lists:
        more += debian(Path(name).read_text(), number)
    bill["components"] = [*bill.get("components", []), *more]
    new = place.with_suffix(".new")
    new.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
    new.replace(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
