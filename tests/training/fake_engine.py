"""Stands in for vLLM where `trail profile` is tested: answers requests through a real ring, in this process.

Every answer's length and every vector follow from the request's prompt and seed, so that two runs agree.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trail.serving.offline import Answers, EngineError, EngineFacts
from trail.wire.frames import ROW_DTYPE, FrameReader, FrameWriter, Kind, RingSpec
from trail.wire.keys import request_key
from trail.wire.names import ring_path


def outcome(prompt: Sequence[int], seed: int, max_tokens: int) -> tuple[int, str]:
    """Length and reason of the answer."""
    length = int(np.random.default_rng([seed, *prompt]).integers(1, 2 * max_tokens))
    return (length, "stop") if length <= max_tokens else (max_tokens, "length")


def vector(layer: int, seed: int, age: int, hidden_size: int) -> np.ndarray:
    return np.random.default_rng([layer, seed, age]).normal(size=hidden_size).astype(np.float32)


class FakeEngine:
    """`faults` change what happens: `hole` leaves a row out, `cached` exports a prompt's mean over a part,
    `abort` ends a request without an answer, `die` ends the engine, `interrupt` comes as Ctrl-C. Each befalls
    the request of that number."""

    def __init__(
        self,
        directory: Path,
        *,
        layers: Sequence[int],
        hidden_size: int,
        every: int = 1,
        max_model_len: int = 64,
        late: bool = False,
        **faults: int,
    ) -> None:
        directory.mkdir(exist_ok=True)
        path = ring_path(directory, 0)
        self.ring = FrameReader.create(path, RingSpec(hidden_size, rows_per_frame=8, slots=4, lossless=True))
        self._writer = FrameWriter.attach(
            path, hidden_size=hidden_size, dtype="float32", layers=layers, lossless_timeout_s=5.0
        )
        self._layers, self._hidden_size, self._every = layers, hidden_size, every
        self._max_model_len = max_model_len
        self._late, self._faults = late, faults
        self._waiting: list[dict[str, Any]] = []
        self._answered = 0
        self.batches: list[list[int]] = []

    def __enter__(self) -> "FakeEngine":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._writer.close()
        self.ring.close(unlink=True)

    def wait_ready(self, meanwhile: Callable[[], object]) -> EngineFacts:
        meanwhile()
        return EngineFacts("0.32.0", "float32", self._max_model_len, self._hidden_size, 4)

    def submit(self, requests: Sequence[dict[str, Any]]) -> None:
        self.batches.append([r["id"] for r in requests])
        self.sampling = requests[0]["sampling"]
        self._waiting += requests

    def answers(self, timeout_s: float) -> Answers | None:
        if not self._waiting:
            return None
        self._answered += 1
        # Every second request overtakes the one before.
        request = self._waiting.pop(self._answered % 2 if len(self._waiting) > 1 else 0)
        number = request["id"]
        if number == self._faults.get("interrupt"):
            raise KeyboardInterrupt
        if number == self._faults.get("die"):
            raise EngineError("vLLM ended")
        sampling = request["sampling"]
        limit = min(sampling["max_tokens"], self._max_model_len - len(request["prompt"]))
        tokens, reason = outcome(request["prompt"], sampling["seed"], limit)
        self._export(request, tokens)
        if number == self._faults.get("abort"):
            reason = "abort"
        return Answers(number, [[0] * tokens], [reason])

    def _export(self, request: dict[str, Any], tokens: int) -> None:
        # The last token as well, as an engine that schedules ahead does.
        ages = list(range(0, tokens + 1, self._every))
        if request["id"] == self._faults.get("hole"):
            ages.remove(0)
        prompt_tokens = len(request["prompt"])
        rows = np.zeros(len(ages) * len(self._layers), ROW_DTYPE)
        rows["key"] = request_key(str(request["id"]))
        rows["position"] = np.tile(ages, len(self._layers)) + prompt_tokens
        rows["pooled"] = 1
        rows["kind"] = Kind.TOKEN
        rows["layer"] = np.repeat(self._layers, len(ages))
        of_prompt = rows["position"] == prompt_tokens
        rows["kind"][of_prompt] = Kind.PROMPT
        rows["pooled"][of_prompt] = 1 if request["id"] == self._faults.get("cached") else prompt_tokens
        vectors = np.array(
            [
                vector(k, request["sampling"]["seed"], age, self._hidden_size)
                for k in self._layers
                for age in ages
            ],
            np.float32,
        )
        if self._late:
            threading.Timer(0.05, self._writer.write, (0, rows, vectors)).start()
        else:
            self._writer.write(0, rows, vectors)
