"""What a run of the sidecar measured, kept for benchmarks: delays, and predictions against what came."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.sidecar.requests.timeline import Ending, Moment, RequestTimeline
from trail.wire.files import write_json

SAMPLES = 1 << 18
"""Samples a reservoir keeps; the newest displace the oldest."""
RECORDS = 200_000
"""Finished requests that are kept; the newest displace the oldest."""


class Reservoir:
    """The last SAMPLES values of a quantity."""

    def __init__(self, size: int = SAMPLES) -> None:
        self._values = np.zeros(size, dtype=np.float32)
        self.count = 0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Takes values, oldest first."""
        size = len(self._values)
        kept = values[-size:]
        first = self.count + len(values) - len(kept)
        self._values[(first + np.arange(len(kept))) % size] = kept
        self.count += len(values)

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The values kept, in no particular order."""
        return self._values[: min(self.count, len(self._values))]

    def summary(self) -> dict[str, float | int]:
        """Count of all values; mean, p50, p99 and max of those kept (absent without any)."""
        if not self.count:
            return {"count": 0}
        values = self.values.astype(np.float64)
        p50, p99 = np.percentile(values, [50, 99])
        return {
            "count": self.count,
            "mean": float(values.mean()),
            "p50": float(p50),
            "p99": float(p99),
            "max": float(values.max()),
        }


@dataclass(frozen=True)
class _Publication:
    steps: npt.NDArray[np.int64]
    published_ns: int


class DelayMeter:
    """Prediction-to-board delay of one engine.

    In time: from a frame's export until what it led to is on the board. In steps: how many later steps had
    been exported by then; that is known when the next frames, with their export times, have been read.
    """

    def __init__(self) -> None:
        self._open: _Publication | None = None

    def published(
        self, steps: npt.NDArray[np.int64], times_ns: npt.NDArray[np.int64], published_ns: int
    ) -> npt.NDArray[np.float64]:
        """Takes the frames of one publication and returns their delays in microseconds, [n]."""
        self._open = _Publication(steps, published_ns)
        return np.asarray((published_ns - times_ns) / 1e3, dtype=np.float64)

    def read(self, steps: npt.NDArray[np.int64], times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Takes frames as they are read and returns the step delays of the publication before, [n]."""
        before, self._open = self._open, None
        if before is None:
            return np.empty(0, dtype=np.float64)
        exported = steps[times_ns <= before.published_ns]
        newest = max(int(before.steps.max()), int(exported.max()) if len(exported) else 0)
        return np.asarray(newest - before.steps, dtype=np.float64)


class RunStats:
    """Everything that goes into the stats file; `detailed`: each request's predictions along its life too."""

    def __init__(self, *, detailed: bool = False) -> None:
        self._detailed = detailed
        self.delay_us = Reservoir()
        self.delay_steps = Reservoir()
        self.predict_us = Reservoir()
        self.prompt_us = Reservoir()
        self.beat_us = Reservoir()
        self._records: deque[dict[str, Any]] = deque(maxlen=RECORDS)

    def moment(self, timeline: RequestTimeline, _moment: Moment) -> None:
        """As a `TimelineListener`: remembers a request that ended, under the policy in force at its end."""
        if timeline.ending is not None:
            self._records.append(_record(timeline, timeline.ending, detailed=self._detailed))

    @property
    def records(self) -> Iterable[dict[str, Any]]:
        """Finished requests, oldest first."""
        return tuple(self._records)

    def to_json(self) -> dict[str, Any]:
        """The content of the stats file."""
        return {
            "delay_us": self.delay_us.summary(),
            "delay_steps": self.delay_steps.summary(),
            "predict_us": self.predict_us.summary(),
            "prompt_us": self.prompt_us.summary(),
            "beat_us": self.beat_us.summary(),
            "requests": list(self.records),
        }

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all. Raises OSError."""
        write_json(path, self.to_json())


def _record(timeline: RequestTimeline, ending: Ending, *, detailed: bool) -> dict[str, Any]:
    record = {
        "engine": timeline.engine,
        "policy": ending.policy.text,
        "generation": ending.generation,
        "request_id": timeline.request_id,
        "prompt_tokens": timeline.prompt_tokens,
        "output_tokens": ending.output_tokens,
        "initial": _known(timeline.initial),
        "initial_source": timeline.initial_source.label,
        "predictions": ending.predictions,
        "refined_mae": _known(ending.refined_mae),
        "preemptions": ending.preemptions,
        "recomputed_tokens": ending.recomputed_tokens,
        "finish_reason": ending.finish_reason,
    }
    if detailed:
        ages, lengths = (column.astype(np.float64) for column in ending.history[:2])
        record["predicted"] = [ages.tolist(), lengths.round(1).tolist()]
    return record


def _known(value: float) -> float | None:
    """JSON has no NaN; null says that nothing was predicted."""
    return None if math.isnan(value) else value
