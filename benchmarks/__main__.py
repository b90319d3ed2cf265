"""`python -m benchmarks`: the experiments of README.md; each is a command of its own."""

import re
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).with_name("README.md")


class Experiment(NamedTuple):
    """A row of the table in README.md."""

    name: str
    question: str
    command: str
    hours: str
    result: str


def experiments() -> list[Experiment]:
    """All of them, as README.md lists them."""
    rows = re.findall(r"^\| `([^`|]+)` \|(.+)\|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return [Experiment(name, *(cell.strip(" `") for cell in cells.split("|"))) for name, cells in rows]


def main() -> None:
    """Prints them."""
    for one in experiments():
        print(f"{one.question} {f'({one.hours} hours)' if one.hours else ''}\n    {one.command}")
    print("Each says more with --help; results are in benchmarks/README.md.")


if __name__ == "__main__":
    main()
