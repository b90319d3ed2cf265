"""An engine's end of a sidecar, without an engine: a steady load of requests."""

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from trail.wire.frames import ROW_DTYPE, FrameWriter, Kind
from trail.wire.names import ring_path, socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

PROMPT_TOKENS = 20
MESSAGE_STEPS = 5
"""Steps whose events share a message, as the engine's do for about 50 ms."""
_WAITING = 4


@dataclass(frozen=True)
class PretendLoad:
    """`running` requests at a time, each of `tokens` tokens, one token a step of `step_s`."""

    running: int = 32
    tokens: int = 60
    step_s: float = 0.01


class PretendEngine:
    """Attaches to the sidecar of `directory`. Every request has a `traceparent` that asks to be sampled."""

    def __init__(self, directory: Path, hidden_size: int, layer: int, load: PretendLoad) -> None:
        """Raises FileNotFoundError before the sidecar has made its files."""
        self._load = load
        self._layer = layer
        self._writer = FrameWriter.attach(
            ring_path(directory, 0), hidden_size=hidden_size, dtype="float32", layers=[layer]
        )
        self._channel = grpc.insecure_channel(f"unix:{socket_path(directory)}")
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = trail_pb2_grpc.LifecycleStub(self._channel).Report.future(self._iterate())
        rng = np.random.default_rng(0)
        self._vectors = rng.standard_normal((load.running, hidden_size)).astype(np.float32)
        self._keys = np.zeros(load.running, np.uint64)
        self._age = np.arange(load.running) * load.tokens // load.running
        self._next_key = 1
        self.ended = self._step = 0
        hello = trail_pb2.Hello(
            hidden_size=hidden_size,
            layers=[layer],
            dtype="float32",
            max_running=load.running,
            model="pretend",
        )
        self._messages.put(trail_pb2.EngineEvents(hello=hello))

    def run(self, seconds: float) -> None:
        """Steps for so long; a step that is late is not made up for."""
        events = trail_pb2.EngineEvents()
        if not self._step:
            events = self._begin(range(self._load.running))
        end_s = time.monotonic() + seconds
        while (began_s := time.monotonic()) < end_s:
            self._step += 1
            self._export(self._step)
            self._age += 1
            done = np.flatnonzero(self._age > self._load.tokens).tolist()
            events.MergeFrom(self._finish(done))
            events.MergeFrom(self._begin(done))
            if self._step % MESSAGE_STEPS == 0:
                events.monotonic_ns, events.wall_ns = time.monotonic_ns(), time.time_ns()
                events.load.CopyFrom(trail_pb2.Load(running=self._load.running, waiting=_WAITING))
                self._messages.put(events)
                events = trail_pb2.EngineEvents()
            time.sleep(max(began_s + self._load.step_s - time.monotonic(), 0.0))

    def close(self) -> None:
        """Leave the sidecar."""
        self._messages.put(None)
        self._channel.close()
        self._writer.close()

    def _iterate(self) -> Iterator[Any]:
        while (message := self._messages.get()) is not None:
            yield message

    def _export(self, step: int) -> None:
        rows = np.zeros(len(self._keys), ROW_DTYPE)
        rows["key"], rows["position"], rows["pooled"] = self._keys, PROMPT_TOKENS + self._age, 1
        rows["layer"], rows["kind"] = self._layer, int(Kind.TOKEN)
        self._writer.write(step, rows, self._vectors)

    def _begin(self, slots: Any) -> Any:
        now_ns, events = time.monotonic_ns(), trail_pb2.EngineEvents()
        for slot in slots:
            key, self._next_key = self._next_key, self._next_key + 1
            self._keys[slot] = key
            # The first ones are spread over their lives, so that ends come evenly.
            self._age[slot] = 1 if self._step else max(int(self._age[slot]), 1)
            events.started.add(
                key=key, request_id=f"pretend-{key}", slot=slot, max_tokens=2 * self._load.tokens,
                prompt_token_ids=range(1, PROMPT_TOKENS + 1), arrival_time_s=time.time(),
                trace_headers={"traceparent": f"00-{key:032x}-{key:016x}-01"},
                passage=trail_pb2.Passage(queued_ns=now_ns),
            )  # fmt: skip
            for change in (trail_pb2.CHANGE_ADMITTED, trail_pb2.CHANGE_FIRST_TOKEN):
                events.changed.add(key=key, change=change, time_ns=now_ns, age=0)
        return events

    def _finish(self, slots: Any) -> Any:
        events = trail_pb2.EngineEvents()
        for slot in slots:
            self.ended += 1
            events.finished.add(
                key=int(self._keys[slot]), slot=slot, output_tokens=self._load.tokens, finish_reason="stop"
            )
        return events
