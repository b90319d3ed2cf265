"""Progress bars of a build, one a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Stages:
    """Shows stages on a rich progress display; make one with `shown`."""

    display: Progress

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yields the function to call with how much was done since the last call."""
        if not self.display.console.is_terminal:
            self.display.console.print(title, highlight=False)
        task = self.display.add_task(title, total=total)
        yield lambda done: self.display.advance(task, done)


@contextmanager
def shown() -> Iterator[Stages]:
    """Stages that appear on the terminal while inside."""
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as display:
        yield Stages(display)
