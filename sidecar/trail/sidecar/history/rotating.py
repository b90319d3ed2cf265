"""A file of lines that never grows beyond a limit: old parts make room for new ones."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

PARTS = 4
"""The file at present and the older ones beside it, `FILE.1` (newest) to `FILE.3`."""


class RotatingFile:
    """Appends lines to `path`; all parts together stay within `limit_bytes`.

    Nothing is opened before the first line. `head` gives the lines that every part begins with.
    """

    def __init__(self, path: Path, limit_bytes: int, head: Callable[[], Sequence[str]]) -> None:
        self.path = path
        self._part_bytes = limit_bytes // PARTS
        self._head = head
        self._file: TextIO | None = None
        self._size = 0

    def write(self, line: str) -> None:
        """Appends a line, in the next part where this one is full. Raises OSError."""
        size = len(line.encode())
        if self._file is not None and self._size + size > self._part_bytes:
            self._turn()
        if self._file is None:
            self._open()
        assert self._file is not None  # noqa: S101 - opened just above
        self._file.write(line)
        self._size += size

    def flush(self) -> None:
        """Hands to the system what is buffered. Raises OSError."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Ends; a later line opens the file again."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                return  # `flush` has told

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            # What an earlier process wrote is kept as an older part, whole.
            self._shift()
        self._file = self.path.open("w", encoding="utf-8")
        self._size = 0
        for line in self._head():
            self._file.write(line)
            self._size += len(line.encode())

    def _turn(self) -> None:
        self.close()
        self._open()

    def _shift(self) -> None:
        for number in range(PARTS - 1, 0, -1):
            older = part(self.path, number - 1)
            if older.exists():
                os.replace(older, part(self.path, number))  # noqa: PTH105 - atomic, whatever is there


def part(path: Path, number: int) -> Path:
    """Where part `number` of the file lies, 0 the one at present."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def parts(path: Path) -> list[Path]:
    """The parts that are there, oldest first."""
    return [p for number in range(PARTS - 1, -1, -1) if (p := part(path, number)).is_file()]
