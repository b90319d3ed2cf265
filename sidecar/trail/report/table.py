"""Tables of results, the same for the terminal and for a page; numbers as text."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as Grid

from trail.report.palette import Style


@dataclass(frozen=True)
class Cell:
    """Text with small print beneath. `warn`: stands out. `prose`: a sentence, not a number."""

    text: str
    small: str = ""
    warn: bool = False
    prose: bool = False


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Rows below headings (a line break in a heading is one in the table); the first column names the row.

    On a page `groups` stand above the headings after the first, each with how many it spans; a name in
    `styles` has a dot of its colour, one in `bold` stands out.
    """

    headings: Sequence[str]
    rows: Sequence[Row]
    styles: Mapping[str, Style] = field(default_factory=dict)
    groups: Sequence[tuple[str, int]] = ()
    bold: Collection[str] = ()

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


def print_table(console: Console, title: str, table: Table) -> None:
    """On a terminal, `!` after what stands out; nothing for a table without rows."""
    grid = Grid(title=title, title_justify="left", title_style="", box=SIMPLE, padding=(0, 1, 0, 0))
    for place, heading in enumerate(table.headings):
        grid.add_column(heading, justify="right" if place else "left")
    for cells in table.cells:
        grid.add_row(*map(_on_terminal, cells))
    if table.rows:
        console.print(grid)


def _on_terminal(cell: Cell) -> str:
    text = f"{cell.text} !" if cell.warn else cell.text
    return f"{text}\n{cell.small}" if cell.small else text


def count_text(value: int | None) -> str:
    """A count, or `?` where nobody counts."""
    return "?" if value is None else f"{value:,}"


def seconds_text(value: float | None) -> str:
    """Seconds with three significant digits."""
    if value is None:
        return "-"
    return f"{value:.{min(4, max(0, 2 - _exponent(value)))}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if abs(value) >= 1e-4 else -4
