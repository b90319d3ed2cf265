"""Initial predictions from prompts, in a thread of their own: they take milliseconds, a loop must not."""

import enum
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trail.sidecar.logs import get_logger
from trail.sidecar.loop.pipeline import Telemetry
from trail.sidecar.pacing import Pacing
from trail.wire.log_lines import RateLimited

BATCH = 64
WAITING_PROMPTS = 10_000

log = get_logger()


class PromptPredictorLike(Protocol):
    """What is asked of a prompt predictor (`trail.predict.prompt.PromptPredictor`)."""

    def predict(self, prompts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [n, k] of the total length's bin for token ids."""
        ...


@dataclass(frozen=True)
class PromptJob:
    """A prompt to be predicted."""

    engine: int
    key: int
    token_ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True)
class PromptResult:
    """A predicted total length in tokens."""

    engine: int
    key: int
    tokens: float


class PromptState(enum.Enum):
    """Whether prompts can be predicted."""

    LOADING = "loading"
    READY = "ready"
    OFF = "off"  # the artefact has no prompt predictor, or it could not be loaded


class PromptWorker:
    """Loads the prompt predictor, then predicts what is submitted, oldest first, in batches.

    `load` returns None where the artefact has no prompt predictor. Prompts wait while it loads. `tokens`
    reads lengths [n] from probabilities [n, k] (`trail.predict.refine.Refiner.point`).
    """

    def __init__(
        self,
        load: Callable[[], PromptPredictorLike | None],
        tokens: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]],
        telemetry: Telemetry,
        pacing: Pacing,
        *,
        on_loaded: Callable[[], None],
    ) -> None:
        self.state = PromptState.LOADING
        self._load = load
        self._tokens = tokens
        self._telemetry = telemetry
        self._pacing = pacing
        self._on_loaded = on_loaded
        self._jobs: queue.Queue[PromptJob] = queue.Queue(maxsize=WAITING_PROMPTS)
        self._results: deque[PromptResult] = deque()
        self._stop = threading.Event()
        self._limited = RateLimited()
        self._thread = threading.Thread(target=self._run, name="trail-prompts", daemon=True)

    def start(self) -> None:
        """Starts loading."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread after its present batch; one that still loads is left behind."""
        self._stop.set()
        self._thread.join(timeout_s)

    def submit(self, job: PromptJob) -> None:
        """Queues a prompt; with too many waiting it is dropped and the probe's prediction stands in."""
        if self.state is PromptState.OFF:
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._failed("prompt queue", f"{WAITING_PROMPTS} prompts wait; this one goes without prediction")

    def drain(self) -> list[PromptResult]:
        """Results since the last call."""
        results: list[PromptResult] = []
        while self._results:
            results.append(self._results.popleft())
        return results

    def _run(self) -> None:
        predictor = self._loaded()
        self._on_loaded()
        if predictor is None:
            self.state = PromptState.OFF
            return
        self.state = PromptState.READY
        while not self._stop.is_set():
            jobs = self._next_jobs()
            if jobs:
                began_s = time.thread_time()
                self._predict(predictor, jobs)
                rest_s = self._pacing.prompt_rest * (time.thread_time() - began_s)
                self._stop.wait(min(rest_s, self._pacing.prompt_rest_most_s))

    def _loaded(self) -> PromptPredictorLike | None:
        began_s = time.monotonic()
        try:
            predictor = self._load()
        except Exception as error:  # noqa: BLE001 - serving goes on without prompt predictions
            self._failed("prompt predictor", f"not loaded, the probe predicts alone: {error}")
            return None
        if predictor is None:
            log.info("the predictor has no prompt part: initial predictions come from the probe")
        else:
            log.info("prompt predictor ready after %.1f s", time.monotonic() - began_s)
        return predictor

    def _next_jobs(self) -> list[PromptJob]:
        jobs: list[PromptJob] = []
        try:
            jobs.append(self._jobs.get(timeout=self._pacing.prompt_look_s))
            while len(jobs) < BATCH:
                jobs.append(self._jobs.get_nowait())
        except queue.Empty:
            pass
        return jobs

    def _predict(self, predictor: PromptPredictorLike, jobs: list[PromptJob]) -> None:
        began_ns = time.monotonic_ns()
        try:
            probabilities = predictor.predict([job.token_ids for job in jobs])
            tokens = self._tokens(probabilities)
        except Exception as error:  # noqa: BLE001 - these requests get the probe's prediction
            # The message may quote its input, and that is somebody's prompt.
            self._failed("prompt predictor", f"{type(error).__name__} on a batch of {len(jobs)} prompts")
            return
        took_ns = time.monotonic_ns() - began_ns
        self._telemetry.metrics.prompt_seconds.observe(took_ns / 1e9)
        self._telemetry.stats.prompt_us.add(np.array([took_ns / 1e3]))
        self._results.extend(
            PromptResult(job.engine, job.key, float(length)) for job, length in zip(jobs, tokens, strict=True)
        )

    def _failed(self, part: str, message: str) -> None:
        self._telemetry.metrics.failures.labels(part=part.replace(" ", "_")).inc()
        if self._limited.admit(f"{part}: {message}") is not None:
            log.error("%s: %s", part, message)
