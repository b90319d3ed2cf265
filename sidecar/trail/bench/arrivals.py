"""Arrival processes. Each returns ascending arrival times in seconds, the first at 0."""

import csv
import gzip
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class TraceError(ValueError):
    """A trace file that cannot be used; the message names file, line and remedy."""


def poisson(n: int, rate_per_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """`n` arrivals of a Poisson process: independent exponential gaps of mean `1 / rate_per_s`."""
    return gamma_gaps(n, rate_per_s, scv=1.0, rng=rng)


def gamma_gaps(n: int, rate_per_s: float, scv: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """`n` arrivals with gamma gaps of mean `1 / rate_per_s` and squared coefficient of variation `scv`.

    `scv` 1 is Poisson; larger values cluster arrivals into bursts.
    """
    if rate_per_s <= 0:
        raise ValueError(f"an arrival rate must be positive, got {rate_per_s}")
    if scv <= 0:
        raise ValueError(f"the squared coefficient of variation of gaps must be positive, got {scv}")
    shape = 1.0 / scv
    gaps = rng.gamma(shape, 1.0 / (shape * rate_per_s), size=max(n - 1, 0))
    return np.concatenate([np.zeros(min(n, 1)), np.cumsum(gaps)])


def burst(n: int) -> NDArray[np.float64]:
    """Everything arrives at once."""
    return np.zeros(n)


def rescale(times_s: NDArray[np.float64], rate_per_s: float) -> NDArray[np.float64]:
    """Stretch or squeeze arrival times so that their mean rate is `rate_per_s`; the pattern stays."""
    if len(times_s) < 2 or times_s[-1] == times_s[0]:
        return times_s - times_s[0] if len(times_s) else times_s
    shares = (times_s - times_s[0]) / (times_s[-1] - times_s[0])
    scaled: NDArray[np.float64] = shares * ((len(times_s) - 1) / rate_per_s)
    return scaled


def read_trace(path: Path, n: int) -> NDArray[np.float64]:
    """The first `n` arrival times of a CSV with a column `arrival_s` (`.gz` allowed), shifted to begin at 0.

    Raises TraceError on a missing column, a value that is no number, a time that runs backwards, or too
    few rows.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, UnicodeDecodeError, EOFError) as e:
        raise TraceError(f"trace {path}: cannot be read ({e})") from e
    reader = csv.DictReader(io.StringIO(text))
    if "arrival_s" not in (reader.fieldnames or ()):
        raise TraceError(f"trace {path}: no column 'arrival_s' in its first line; found {reader.fieldnames}")
    times: list[float] = []
    for row in reader:
        if len(times) == n:
            break
        try:
            value = float(row["arrival_s"])
        except (TypeError, ValueError) as e:
            raise TraceError(
                f"trace {path}, line {reader.line_num}: arrival_s is no number: {row['arrival_s']!r}"
            ) from e
        if not np.isfinite(value) or (times and value < times[-1]):
            raise TraceError(
                f"trace {path}, line {reader.line_num}: arrival_s {value} is before the line above it"
            )
        times.append(value)
    if len(times) < n:
        raise TraceError(f"trace {path} has {len(times)} arrivals, {n} are asked for; lower --requests")
    out = np.asarray(times)
    return out - out[0] if n else out
