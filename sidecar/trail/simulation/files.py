"""Workload files: Azure's CSV, Mooncake's JSON lines, samples of lengths, results of `trail bench`."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trail.simulation.engine.workload import Pool, Source, Workload

RUNAWAY_TOKENS = 4096
"""CASTILLO rows with a longer answer than this are left out: models that did not stop (its README)."""
_SAMPLES = tuple(f"o{i}" for i in range(10))
LENGTHS_COLUMNS = ("output_tokens", "actual_output_tokens", "output_length", "length")
_AZURE = ("arrival_s", "input_tokens", "output_tokens")
_MOONCAKE = ("timestamp", "input_length", "output_length")


class WorkloadError(ValueError):
    """A workload file that cannot be used; the message names file, line and remedy."""


def read_source(path: Path, *, prompt_tokens: int = 256, lengths_column: str | None = None) -> Source:
    """Requests or lengths of a file (`.gz` allowed), by what its first line says.

    | first line | what it is |
    |---|---|
    | CSV with arrival_s, input_tokens, output_tokens | a trace as Azure's, in seconds |
    | JSON object with timestamp, input_length, output_length | a trace as Mooncake's, in milliseconds |
    | CSV with input_tokens and o0 .. o9 | CASTILLO's samples: ten lengths a row |
    | CSV with a column `lengths_column`, or one of `LENGTHS_COLUMNS` | lengths |
    | JSON object with arms | results of trail bench: the requests of its first run |

    Lengths without a prompt's get one of `prompt_tokens`. Raises WorkloadError naming the line at fault.
    """
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lstrip().startswith("{"):
        if '"arms"' in text and '"timestamp"' not in first:
            return Source(path.name, recorded=_bench(path, text))
        return Source(path.name, recorded=_mooncake(path, text))
    names = [name.strip() for name in next(csv.reader([first]), [])]
    if set(_AZURE) <= set(names):
        return Source(path.name, recorded=_azure(path, text))
    if set(_SAMPLES) <= set(names):
        return Source(path.name, pool=_samples(path, text, prompt_tokens))
    return Source(path.name, pool=_column(path, text, names, prompt_tokens, lengths_column))


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, UnicodeDecodeError, EOFError) as e:
        raise WorkloadError(f"workload {path}: cannot be read ({e})") from e


def _rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        yield f"workload {path}, line {reader.line_num}", {str(k).strip(): v for k, v in row.items()}


def _tokens(where: str, name: str, value: object) -> int:
    number = _number(where, name, value)
    if number < 1 or number != int(number):
        raise WorkloadError(f"{where}: {name} must be a whole number of at least 1, got {value!r}")
    return int(number)


def _number(where: str, name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as e:
        raise WorkloadError(f"{where}: {name} is no number: {value!r}") from e
    if not np.isfinite(number):
        raise WorkloadError(f"{where}: {name} is not finite: {value!r}")
    return number


def _azure(path: Path, text: str) -> Workload:
    def parts(where: str, row: dict[str, Any]) -> tuple[float, int, int]:
        return (
            _number(where, "arrival_s", row["arrival_s"]),
            _tokens(where, "input_tokens", row["input_tokens"]),
            _tokens(where, "output_tokens", row["output_tokens"]),
        )

    return _trace(path, _rows(path, text), parts)


def _mooncake(path: Path, text: str) -> Workload:
    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            where = f"workload {path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise WorkloadError(f"{where}: no JSON ({e})") from e
            if not isinstance(row, dict) or not set(_MOONCAKE) <= set(row):
                raise WorkloadError(f"{where}: expected an object with {', '.join(_MOONCAKE)}")
            yield where, row

    def parts(where: str, row: dict[str, Any]) -> tuple[float, int, int]:
        return (
            _number(where, "timestamp", row["timestamp"]) / 1e3,
            _tokens(where, "input_length", row["input_length"]),
            _tokens(where, "output_length", row["output_length"]),
        )

    return _trace(path, rows(), parts)


def _trace(
    path: Path,
    rows: Iterator[tuple[str, dict[str, Any]]],
    parts: Callable[[str, dict[str, Any]], tuple[float, int, int]],
) -> Workload:
    columns: tuple[list[float], list[int], list[int]] = ([], [], [])
    for where, row in rows:
        values = parts(where, row)
        if columns[0] and values[0] < columns[0][-1]:
            raise WorkloadError(f"{where}: arrives at {values[0]} s, before the line above it; sort the file")
        for column, value in zip(columns, values, strict=True):
            column.append(value)  # type: ignore[attr-defined]
    if not columns[0]:
        raise WorkloadError(f"workload {path}: no requests in it")
    times = np.asarray(columns[0], np.float64)
    return Workload(times - times[0], np.asarray(columns[1], np.int64), np.asarray(columns[2], np.int64))


def _samples(path: Path, text: str, prompt_tokens: int) -> Pool:
    prompts: list[int] = []
    outputs: list[int] = []
    for where, row in _rows(path, text):
        lengths = [_tokens(where, name, row[name]) for name in _SAMPLES]
        if max(lengths) > RUNAWAY_TOKENS:
            continue
        prompt = (
            _tokens(where, "input_tokens", row["input_tokens"]) if "input_tokens" in row else prompt_tokens
        )
        prompts += [prompt] * len(lengths)
        outputs += lengths
    if not outputs:
        raise WorkloadError(
            f"workload {path}: no row whose longest answer is at most {RUNAWAY_TOKENS} tokens"
        )
    return Pool(np.asarray(prompts, np.int64), np.asarray(outputs, np.int64))


def _column(path: Path, text: str, names: list[str], prompt_tokens: int, wanted: str | None) -> Pool:
    candidates = (wanted,) if wanted else LENGTHS_COLUMNS
    name = next((c for c in candidates if c in names), None)
    if name is None:
        raise WorkloadError(
            f"workload {path}: its first line names neither a trace's columns ({', '.join(_AZURE)}), nor"
            f" {' or '.join(candidates)}; found {names}. Say --lengths-column COLUMN"
        )
    outputs = [_tokens(where, name, row[name]) for where, row in _rows(path, text)]
    if not outputs:
        raise WorkloadError(f"workload {path}: no lines below the first")
    return Pool(np.full(len(outputs), prompt_tokens, np.int64), np.asarray(outputs, np.int64))


def _bench(path: Path, text: str) -> Workload:
    try:
        arms = json.loads(text)["arms"]
        requests = next(iter(arms.values()))["runs"][0]["requests"]
        rows = [
            (float(at), int(prompt), int(output))
            for at, prompt, output in zip(
                requests["arrival_s"], requests["prompt_tokens"], requests["output_tokens"], strict=True
            )
            if prompt and output
        ]
    except (ValueError, KeyError, TypeError, IndexError, StopIteration) as e:
        raise WorkloadError(f"workload {path}: not results of trail bench ({type(e).__name__}: {e})") from e
    if not rows:
        raise WorkloadError(f"workload {path}: its first run completed no request")
    rows.sort(key=lambda row: row[0])
    times, prompts, outputs = zip(*rows, strict=True)
    return Workload(
        np.asarray(times, np.float64), np.asarray(prompts, np.int64), np.asarray(outputs, np.int64)
    )
