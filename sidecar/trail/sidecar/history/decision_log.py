"""The decision log: one line a finished request with what was predicted of it along its life, as JSON lines.

It holds numbers, ids of requests and names of policies, no text and no token. `trail shadow-report` reads it.

    {"kind": "log", "format": 1, "version": "..."}                     the first line of every file
    {"kind": "engine", "engine": 0, "model": ..., "slots": ..., "kv_blocks": ..., "block_tokens": ...}
    {"kind": "request", "engine": 0, "id": ..., "policy": ..., "arrival_s": ..., "prompt_tokens": ..., ...}
    {"kind": "load", "engine": 0, "at_s": ..., "seconds": ..., "steps": ..., "running": ..., ...}

Times are of the wall clock, in seconds. `refined` is a list of [age, predicted remaining tokens], at most
`KEPT` of them evenly over the answer. A `load` line says how many steps an engine took in a second or so.
"""

import json
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from trail import __version__
from trail.sidecar.history.rotating import RotatingFile
from trail.sidecar.logs import get_logger
from trail.sidecar.pacing import SHARED_CORES, Pacing
from trail.sidecar.requests.timeline import Ending, Moment, RequestTimeline
from trail.wire.lifecycle import Hello, Load

FORMAT = 1
KEPT = 64
"""Predictions of a request that are logged, at most."""
FIRST_STRIDE = 4
"""Tokens between two that are kept, at first; it doubles whenever there are `KEPT`."""
QUEUE_SIZE = 8192

log = get_logger()


class Pipeline(Protocol):
    """What the log reads of an engine."""

    engine: int
    load: Load
    hello: Hello | None


class DecisionLog:
    """A `TimelineListener` that writes lines in a thread of its own.

    The loop's thread hands ended requests on and never waits: what does not fit is dropped and counted, and a
    disk that cannot be written costs the lines and one message.
    """

    def __init__(
        self, path: Path, limit_bytes: int, pipelines: Iterable[Pipeline], pacing: Pacing = SHARED_CORES
    ) -> None:
        self.dropped = 0
        self.written = 0
        self._pipelines = list(pipelines)
        self._pacing = pacing
        self._file = RotatingFile(path, limit_bytes, self._head)
        self._queue: queue.Queue[RequestTimeline] = queue.Queue(QUEUE_SIZE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-decisions", daemon=True)
        self._failing = False
        self._hellos: dict[int, Hello] = {}
        self._seen: dict[int, tuple[float, int]] = {}

    def moment(self, timeline: RequestTimeline, _moment: Moment) -> None:
        """Called by the loop for every change; only the end counts."""
        if not timeline.ended:
            return
        try:
            self._queue.put_nowait(timeline)
        except queue.Full:
            self.dropped += 1

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()
        log.info("decisions are logged to %s", self._file.path)

    def close(self) -> None:
        """Writes what is there, and ends."""
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._pacing.decisions_write_every_s)
            self._write()
        self._file.close()

    def _write(self) -> None:
        records = list(self._loads(time.time()))
        taken = 0
        while taken < QUEUE_SIZE:
            try:
                records.append(request_record(self._queue.get_nowait()))
            except queue.Empty:
                break
            taken += 1
        try:
            self._introduce()
            for record in records:
                self._file.write(_line(record))
            self._file.flush()
        except OSError as error:
            self.dropped += taken
            if not self._failing:
                log.warning("decisions cannot be logged: %s; requests are served regardless", error)
            self._failing = True
        else:
            self.written += taken
            self._failing = False

    def _head(self) -> list[str]:
        """What every file begins with, so that each can be read alone."""
        lines = [_line({"kind": "log", "format": FORMAT, "version": __version__})]
        return lines + [_line(_engine_record(hello)) for hello in self._hellos.values()]

    def _introduce(self) -> None:
        """Writes what engines say of themselves, where it is new. Raises OSError."""
        for pipeline in self._pipelines:
            hello = pipeline.hello
            if hello is not None and self._hellos.get(pipeline.engine) != hello:
                self._file.write(_line(_engine_record(hello)))
                self._hellos[pipeline.engine] = hello

    def _loads(self, now_s: float) -> Iterable[Mapping[str, Any]]:
        for pipeline in self._pipelines:
            load = pipeline.load
            before_s, steps = self._seen.get(pipeline.engine, (now_s, load.steps_total))
            if pipeline.engine in self._seen and now_s - before_s < self._pacing.decisions_load_every_s:
                continue
            self._seen[pipeline.engine] = (now_s, load.steps_total)
            if load.steps_total > steps:
                yield {
                    "kind": "load",
                    "engine": pipeline.engine,
                    "at_s": round(now_s, 3),
                    "seconds": round(now_s - before_s, 3),
                    "steps": load.steps_total - steps,
                    "running": load.running,
                    "waiting": load.waiting,
                    "kv_usage": round(load.kv_usage, 4),
                }


def request_record(timeline: RequestTimeline) -> dict[str, Any]:
    """The line of a request that has ended. Times that are not known are null."""
    ending, summary = timeline.ending, timeline.summary
    assert ending is not None  # noqa: S101 - only ended ones come here
    return {
        "kind": "request",
        "engine": timeline.engine,
        "id": timeline.request_id,
        "policy": ending.policy.text,
        "generation": ending.generation,
        "arrival_s": round(timeline.starts_ns / 1e9, 6),
        "found": timeline.found,
        "prompt_tokens": timeline.prompt_tokens,
        "output_tokens": ending.output_tokens,
        "finish": ending.finish_reason,
        "initial": _number(timeline.initial),
        "refined": [[age, round(left, 2)] for age, left in thinned(_remaining(timeline.initial, ending))],
        "queued_s": _number(timeline.queued_s),
        "first_token_s": _number(timeline.first_token_s),
        "total_s": _number(timeline.total_s),
        "policy_preemptions": summary.policy_preemptions,
        "memory_preemptions": summary.memory_preemptions,
        "recomputed_tokens": ending.recomputed_tokens,
        "fallback_steps": summary.fallback_steps,
    }


def thinned(predictions: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """`predictions` as (age, remaining), in order of age, at ages at least a stride apart, so that `KEPT` are
    left at most."""
    points: list[tuple[int, float]] = []
    stride, wanted = FIRST_STRIDE, 1
    for age, remaining in predictions:
        if age < wanted:
            continue
        points.append((age, remaining))
        if len(points) > KEPT:
            del points[1::2]
            stride *= 2
        wanted = age + stride
    return points


def _remaining(initial: float, ending: Ending) -> Iterator[tuple[int, float]]:
    """Ages, and what the board said there of the tokens to come."""
    for age, length in zip(ending.history.ages.tolist(), ending.history.lengths.tolist(), strict=True):
        yield age, max(initial - age, 0.0) if ending.by_prompt else length - age


def _engine_record(hello: Hello) -> dict[str, Any]:
    return {
        "kind": "engine",
        "engine": hello.engine,
        "model": hello.model,
        "vllm": hello.vllm_version,
        "slots": hello.max_running,
        "kv_blocks": hello.kv_blocks,
        "block_tokens": hello.block_size_tokens,
        "context_tokens": hello.max_model_len,
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"
