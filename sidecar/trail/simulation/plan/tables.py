"""Columns of numbers from CSV files (`.gz` allowed), with errors that name the line."""

import csv
import gzip
import io
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class TableError(ValueError):
    """A file that cannot be used; the message names file, line and remedy."""


def read_columns(path: Path, pattern: str) -> NDArray[np.float64]:
    """The columns whose heading is `pattern` or matches it (`o*`), float64 [rows, columns].

    Every number is finite. Raises TableError naming the line at fault, or the headings there are.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, UnicodeDecodeError, EOFError) as e:
        raise TableError(f"{path}: cannot be read ({e})") from e
    rows = csv.reader(io.StringIO(text))
    headings = next(rows, [])
    chosen = [i for i, heading in enumerate(headings) if fnmatchcase(heading, pattern)]
    if not chosen:
        raise TableError(
            f"{path}: no column {pattern!r}; its first line names {', '.join(headings) or 'nothing'}"
        )
    table: list[list[float]] = []
    for row in rows:
        if not row:
            continue
        try:
            table.append([float(row[i]) for i in chosen])
        except (ValueError, IndexError):
            raise TableError(
                f"{path}, line {rows.line_num}: needs a number in {', '.join(headings[i] for i in chosen)}"
            ) from None
        if not np.isfinite(table[-1]).all():
            raise TableError(f"{path}, line {rows.line_num}: holds a number that is not finite")
    if not table:
        raise TableError(f"{path}: no lines below its headings")
    return np.array(table, dtype=np.float64)
