"""Timing histograms that outlive a killed process: written to the shared directory at intervals."""

import contextlib
import json
import math
import time
from pathlib import Path

import numpy as np

from trail.wire.files import write_text

BUCKETS = 400
FIRST_EDGE_US = 0.1
GROWTH = 1.05
"""Each bucket is 5 % wider than the one before: 0.1 us to about 30 s, percentiles within 5 %."""
WRITE_INTERVAL_NS = 5_000_000_000


class Timing:
    """A histogram of durations with geometric buckets; adding one costs well under a microsecond."""

    def __init__(self) -> None:
        self._edges_us = FIRST_EDGE_US * GROWTH ** np.arange(BUCKETS)
        self._log_first = math.log(FIRST_EDGE_US)
        self._inverse_log_growth = 1.0 / math.log(GROWTH)
        self._counts = [0] * BUCKETS
        self.count = 0
        self.total_us = 0.0
        self.max_us = 0.0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        us = duration_ns * 1e-3
        bucket = 0
        if us > FIRST_EDGE_US:
            bucket = min(int((math.log(us) - self._log_first) * self._inverse_log_growth) + 1, BUCKETS - 1)
        self._counts[bucket] += 1
        self.count += 1
        self.total_us += us
        self.max_us = max(self.max_us, us)

    def percentile_us(self, fraction: float) -> float:
        """Upper edge of the bucket holding the `fraction` quantile, in microseconds; 0 without data."""
        if self.count == 0:
            return 0.0
        cumulative = np.cumsum(self._counts)
        bucket = int(np.searchsorted(cumulative, fraction * self.count, side="left"))
        return min(float(self._edges_us[min(bucket, BUCKETS - 1)]), self.max_us)

    def summary(self) -> dict[str, float]:
        """Count, mean, p50, p99 and maximum, in microseconds."""
        return {
            "count": self.count,
            "mean": self.total_us / self.count if self.count else 0.0,
            "p50": self.percentile_us(0.50),
            "p99": self.percentile_us(0.99),
            "max": self.max_us,
        }


class StatsFile:
    """Writes timings and counters as JSON, at most every `WRITE_INTERVAL_NS`, in place by rename.

    One object per process and file; `maybe_write` never raises, because the directory may be gone.
    """

    def __init__(self, path: Path, timings: dict[str, Timing], counters: dict[str, int]) -> None:
        self.path = path
        self._timings = timings
        self._counters = counters
        self._next_write_ns = 0

    def maybe_write(self, now_ns: int) -> None:
        """Write if the last write is long enough ago. `now_ns` is CLOCK_MONOTONIC."""
        if now_ns < self._next_write_ns:
            return
        self._next_write_ns = now_ns + WRITE_INTERVAL_NS
        self.write()

    def write(self) -> None:
        """Write at once; a directory that cannot be written to is passed over."""
        document: dict[str, object] = {name: timing.summary() for name, timing in self._timings.items()}
        document["counters"] = dict(self._counters)
        document["written_ns"] = time.monotonic_ns()
        with contextlib.suppress(OSError):
            write_text(self.path, json.dumps(document, indent=1))


def export_stats_path(directory: Path, engine: int) -> Path:
    """Timings of the worker's export: `export_us`."""
    return directory / f"export-{engine}.json"


def schedule_stats_path(directory: Path, engine: int) -> Path:
    """Timings of the scheduler's own part of a step: `schedule_us`."""
    return directory / f"schedule-{engine}.json"
