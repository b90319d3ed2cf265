"""What the service's tests share: a probe that is told what to answer, a pipeline, an engine's stream."""

import math
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from trail.policy.spec import PolicySpec
from trail.predict.bins import Bins, equal_bins
from trail.predict.refine import Refiner
from trail.sidecar.loop.counters import Metrics
from trail.sidecar.loop.pending import Rows
from trail.sidecar.loop.pipeline import EnginePipeline, Expected, Telemetry
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.loop.prediction import Predictor
from trail.sidecar.pacing import SHARED_CORES, Pacing
from trail.sidecar.quality.monitor import QualityMonitor
from trail.sidecar.requests.predictions import PredictionHistories
from trail.sidecar.requests.stats import RunStats
from trail.sidecar.requests.timeline import Ending
from trail.sidecar.requests.tracker import RunningMean
from trail.wire.board import BoardReader, BoardWriter
from trail.wire.frames import ROW_DTYPE, FrameReader, FrameWriter, Kind, RingSpec
from trail.wire.lifecycle import Hello, Started
from trail.wire.names import board_path, ring_path, socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

BINS: Bins = equal_bins(4, 64.0)
LAYER = 2
HIDDEN = 8


class TellingProbe:
    """Answers with the first k numbers of the vector, normalised: tests write the answer they want."""

    layer = LAYER
    hidden_size = HIDDEN

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, vectors: np.ndarray, ages: np.ndarray, prompt_tokens: np.ndarray) -> np.ndarray:
        self.batches.append(len(vectors))
        answer = np.abs(vectors[:, : BINS.k].astype(np.float64))
        return (answer / answer.sum(axis=1, keepdims=True)).astype(np.float32)


def vector(*answer: float) -> np.ndarray:
    """A hidden state that TellingProbe reads as `answer`."""
    return np.array([*answer, *[0.0] * (HIDDEN - len(answer))], dtype=np.float32)


def rows(*items: tuple[int, int, Kind, np.ndarray], layer: int = LAYER) -> Rows:
    """Rows of (key, position, kind, vector)."""
    table = np.zeros(len(items), dtype=ROW_DTYPE)
    for row, (key, position, kind, _) in zip(table, items, strict=True):
        row["key"], row["position"], row["kind"], row["layer"], row["pooled"] = key, position, kind, layer, 1
    vectors = np.stack([item[3] for item in items]) if items else np.zeros((0, HIDDEN), np.float32)
    return Rows(table, vectors)


def started(key: int, slot: int, prompt_tokens: int = 5, **more: Any) -> Started:
    return Started(
        key=key, request_id=f"r{key}", slot=slot, prompt_token_ids=tuple(range(prompt_tokens)), **more
    )


def ending(output_tokens: int, **more: Any) -> Ending:
    """An end of which nothing is known but what the test states."""
    nothing = PredictionHistories(1, BINS.k).of(0, 0)
    return Ending(
        **{
            "output_tokens": output_tokens, "preemptions": 0, "recomputed_tokens": 0, "finish_reason": "stop",
            "limit": 0, "prompt_said": 0.0, "predictions": 0, "refined_mae": math.nan, "history": nothing,
            "by_prompt": False, "policy": PolicySpec(), "generation": 1, **more,
        }
    )  # fmt: skip


class Bench:
    """A pipeline with its real ring and board, the worker's writer, and the engine's reader; time stands
    still unless moved."""

    def __init__(
        self,
        directory: Path,
        spec: PolicySpec | None = None,
        *,
        probe: Any = None,
        quality: QualityMonitor | None = None,
        pacing: Pacing = SHARED_CORES,
    ) -> None:
        self.now_ns = time.monotonic_ns()
        self.policy = PolicyBox(spec or PolicySpec())
        self.telemetry = Telemetry(Metrics(), RunStats())
        self.mean = RunningMean(30.0)
        board = BoardWriter.create(board_path(directory, 0), 16)
        ring = FrameReader.create(ring_path(directory, 0), RingSpec(HIDDEN, rows_per_frame=8, slots=16))
        self.pipeline = EnginePipeline(
            0, board=board, ring=ring, expected=Expected(HIDDEN, LAYER), bins=BINS.k, mean=self.mean,
            policy=self.policy, telemetry=self.telemetry, epoch=7, pacing=pacing, quality=quality,
            clock=lambda: self.now_ns,
        )  # fmt: skip
        self.probe = probe or TellingProbe()
        self.pipeline.predictor = Predictor(self.probe, Refiner(BINS))
        self.writer = FrameWriter.attach(
            ring_path(directory, 0), hidden_size=HIDDEN, dtype="float32", layers=[LAYER]
        )
        self.reader = BoardReader.attach(board_path(directory, 0))
        self.steps = 0
        self.pipeline.apply(Hello(engine=0, hidden_size=HIDDEN, layers=(LAYER,)), 1)

    def apply(self, *events: Any) -> None:
        for event in events:
            self.pipeline.apply(event, 1)

    def export(self, *items: tuple[int, int, Kind, np.ndarray], layer: int = LAYER) -> None:
        """The worker exports one step's rows."""
        self.steps += 1
        batch = rows(*items, layer=layer)
        self.writer.write(self.steps, batch.rows, batch.vectors)

    def board(self, *slots: int) -> np.ndarray:
        """Rows that the engine reads at `slots`."""
        snapshot = self.reader.snapshot(np.array(slots, dtype=np.int64))
        assert snapshot is not None
        return snapshot.rows

    def header(self) -> Any:
        snapshot = self.reader.snapshot(np.array([], dtype=np.int64))
        assert snapshot is not None
        return snapshot.header

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        self.pipeline.close()


class EngineStream:
    """An engine core's end of the lifecycle stream, on a real channel."""

    def __init__(self, directory: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix:{socket_path(directory)}")
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = trail_pb2_grpc.LifecycleStub(self.channel).Report.future(self._iterate())

    def _iterate(self) -> Iterator[Any]:
        while (message := self._messages.get()) is not None:
            yield message

    def send(self, **fields: Any) -> None:
        self._messages.put(trail_pb2.EngineEvents(**fields))

    def hello(self, **fields: Any) -> None:
        self.send(hello=trail_pb2.Hello(**{"engine": 0, "hidden_size": HIDDEN, "layers": [LAYER], **fields}))

    def close(self) -> None:
        self._messages.put(None)
        self.channel.close()


def until(condition: Callable[[], Any], limit_s: float = 90.0) -> Any:
    """The first true answer of `condition`; fails the test when none comes."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.01)
    raise AssertionError("it never came true")


class SidecarProcess:
    """`trail sidecar` as a real process."""

    def __init__(self, directory: Path, *args: str, predictor: Path | None = None) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "trail", "sidecar", "--dir", str(directory), "--metrics-port", "0"]
        if predictor is not None:
            command += ["--predictor", str(predictor)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TRAIL_")}
        self.process = subprocess.Popen(
            [*command, *args], stderr=subprocess.PIPE, text=True, env={**environ, "OMP_NUM_THREADS": "1"}
        )
        self._log: str | None = None

    def board(self) -> BoardReader | None:
        """The board as an engine attaches to it, once it is there and alive."""
        assert self.process.poll() is None, self.end()
        try:
            reader = BoardReader.attach(board_path(self.directory, 0))
        except FileNotFoundError:
            return None
        if reader.fresh(100_000_000):
            return reader
        reader.close()
        return None

    def metrics_port(self) -> int | None:
        """The port the process listens on, as the kernel tells it."""
        descriptors = Path(f"/proc/{self.process.pid}/fd").iterdir()
        links = [str(entry.readlink()) for entry in descriptors if entry.is_symlink()]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                return int(fields[1].split(":")[1], 16)
        return None

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signals the process where it still runs; its exit code and what it logged."""
        if self._log is None:
            if self.process.poll() is None:
                self.process.send_signal(how)
            _, self._log = self.process.communicate(timeout=30)
        return self.process.returncode, self._log
