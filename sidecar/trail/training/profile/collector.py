"""Reads the frame ring while the engine runs and sorts its rows by shard."""

import threading
import time

import numpy as np
import numpy.typing as npt

from trail.training.recording.spool import Spool
from trail.wire.frames import Frame, FrameReader, Kind
from trail.wire.keys import request_key

_REST_S = 0.001


class ExportError(Exception):
    """What the engine exported is not what was to be recorded; the message says what is wrong."""


class Collector(threading.Thread):
    """Takes frames until it is stopped. Requests are numbered over the whole recording.

    `prompt_tokens` int [n]: the prompt's length of every request; `shard_requests`: requests of a shard.
    Rows of requests that nobody expects are left out.
    """

    def __init__(
        self, reader: FrameReader, prompt_tokens: npt.NDArray[np.int64], shard_requests: int
    ) -> None:
        super().__init__(name="trail-collector", daemon=True)
        self._reader = reader
        self._prompt_tokens = prompt_tokens
        self._shard_requests = shard_requests
        self._numbers: dict[int, int] = {}
        self._spools: dict[int, Spool] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._failure: Exception | None = None

    def expect(self, shard: int, requests: range, spool: Spool) -> None:
        """Rows of these requests go to the spool from here on."""
        with self._lock:
            self._spools[shard] = spool
            self._numbers.update((request_key(str(number)), number) for number in requests)

    def forget(self, shard: int, requests: range) -> None:
        """No more rows of these requests are taken."""
        with self._lock:
            del self._spools[shard]
            for number in requests:
                del self._numbers[request_key(str(number))]

    def check(self) -> None:
        """Raise what went wrong in the thread: ExportError, or OSError from the disk."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Read until stopped; a failure waits for `check`."""
        try:
            while not self._stopping.is_set():
                self._reader.beat()
                frames = self._reader.read()
                for frame in frames:
                    self.take(frame)
                if not frames:
                    time.sleep(_REST_S)
                self._check_counters()
        except Exception as failure:  # noqa: BLE001 - raised again where the main thread looks
            self._failure = failure

    def _check_counters(self) -> None:
        counters = self._reader.counters
        if counters.lost or counters.torn or counters.rejected:
            raise ExportError(
                f"frames were lost on the way: {counters}; the engine did not wait, or its memory is damaged"
            )

    def take(self, frame: Frame) -> None:
        """Pass one frame's rows on. Raises ExportError for a prompt that was not computed whole."""
        with self._lock:
            numbers = np.array([self._numbers.get(key, -1) for key in frame.rows["key"].tolist()], np.int64)
            known = numbers >= 0
            rows, vectors = frame.rows, frame.vectors
            if not known.all():
                rows, vectors, numbers = rows[known], vectors[known], numbers[known]
            prompt_tokens = self._prompt_tokens[numbers]
            ages = rows["position"].astype(np.int64) - prompt_tokens
            _check(rows, ages, prompt_tokens)
            shards = numbers // self._shard_requests
            layers = rows["layer"].astype(np.int64)
            for shard in np.unique(shards):
                spool = self._spools[int(shard)]
                for layer in np.unique(layers[shards == shard]):
                    at = np.flatnonzero((shards == shard) & (layers == layer))
                    spool.add(int(layer), numbers[at] % self._shard_requests, ages[at], vectors[at])


def _check(
    rows: npt.NDArray[np.void], ages: npt.NDArray[np.int64], prompt_tokens: npt.NDArray[np.int64]
) -> None:
    prompts = rows["kind"] == Kind.PROMPT
    if np.any(ages[prompts] != 0) or np.any(ages[~prompts] < 1):
        raise ExportError("a row's position does not fit its kind; engine and recorder are of other releases")
    partial = prompts & (rows["pooled"] != prompt_tokens)
    if np.any(partial):
        at = int(np.flatnonzero(partial)[0])
        raise ExportError(
            f"the vector of a prompt covers {rows['pooled'][at]} of its {prompt_tokens[at]} tokens: parts of"
            " it came from a cache; run vLLM without prefix caching"
        )
