"""The sidecar's one loop: events and frames in, ranks out, and the heartbeat that vouches for both."""

import queue
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trail.service.events import Event, Started
from trail.service.lane import EngineLane
from trail.service.logs import RateLimited, get_logger
from trail.service.metrics import Metrics
from trail.service.prompting import PromptJob, PromptWorker

BUSY_S = 0.5e-3
IDLE_S = 5e-3
REST = 39.0
"""Pause after a busy round, in lengths of the CPU time that round took, so that vLLM keeps its cores.

A rank gets older by the pause; where cores are scarce, one taken from vLLM costs more than that.
"""
REST_LIMIT_S = 30e-3
"""Longest such pause: the heartbeat must come well within the engine's limit."""
_GROWTH = 1.3
_EVENTS_A_STEP = 256
INBOX_SIZE = 10_000

log = get_logger()


@dataclass(frozen=True)
class Delivery:
    """Events of one message of an engine's stream."""

    engine: int
    session: int
    events: tuple[Event, ...]


class Inbox:
    """Deliveries on their way from gRPC's threads to the loop. Bounded, so that a loop that hangs makes
    the streams wait and not the memory grow."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Delivery] = queue.Queue(maxsize=INBOX_SIZE)

    def put(self, delivery: Delivery, timeout_s: float) -> bool:
        """False when there was no room within `timeout_s`."""
        try:
            self._queue.put(delivery, timeout=timeout_s)
        except queue.Full:
            return False
        return True

    def drain(self, most: int) -> list[Delivery]:
        """Up to `most` deliveries, oldest first."""
        taken: list[Delivery] = []
        try:
            while len(taken) < most:
                taken.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return taken


class SidecarLoop:
    """Drives the lanes. `step` does one round without waiting; `run` repeats it in the calling thread.

    A lane beats in its own step, after its predictions are on the board: a step that fails or hangs is
    silence, and silence makes the engine fall back.
    """

    def __init__(
        self,
        lanes: Mapping[int, EngineLane],
        inbox: Inbox,
        prompts: PromptWorker | None,
        metrics: Metrics,
    ) -> None:
        self._lanes = lanes
        self._inbox = inbox
        self._prompts = prompts
        self._metrics = metrics
        self._limited = RateLimited()
        self.last_round_ns = 0

    def step(self) -> bool:
        """One round; True when there was something to do."""
        deliveries = self._inbox.drain(_EVENTS_A_STEP)
        for delivery in deliveries:
            self._deliver(delivery)
        results = self._prompts.drain() if self._prompts is not None else []
        for result in results:
            self._lanes[result.engine].tracker.set_prompt_prediction(result.key, result.tokens)
        busy = bool(deliveries or results)
        whole = True
        for lane in self._lanes.values():
            try:
                busy = lane.step() or busy
            except Exception as error:  # noqa: BLE001 - the loop outlives any error of a round
                whole = False
                self._failed(f"engine {lane.engine}", error)
        if whole:
            self.last_round_ns = time.monotonic_ns()
        return busy

    def run(self, stop: threading.Event) -> None:
        """Repeats `step` until `stop`: soon while busy, then at growing intervals up to IDLE_S."""
        pause_s = BUSY_S
        while not stop.is_set():
            began_s = time.thread_time()
            try:
                busy = self.step()
                rest_s = min(max(REST * (time.thread_time() - began_s), BUSY_S), REST_LIMIT_S)
                pause_s = rest_s if busy else min(pause_s * _GROWTH, IDLE_S)
                if busy:
                    self._say_interval(int(rest_s * 1e9))
            except Exception as error:  # noqa: BLE001 - the loop outlives any error of a round
                self._failed("loop", error)
            stop.wait(pause_s)

    def _say_interval(self, interval_ns: int) -> None:
        for lane in self._lanes.values():
            lane.say_interval(interval_ns)

    def _deliver(self, delivery: Delivery) -> None:
        lane = self._lanes[delivery.engine]
        for event in delivery.events:
            try:
                wants_prompt = lane.apply(event, delivery.session)
            except Exception as error:  # noqa: BLE001 - one bad event must not cost the others
                self._failed(f"engine {lane.engine}", error)
                continue
            if wants_prompt and self._prompts is not None and isinstance(event, Started):
                self._prompts.submit(PromptJob(lane.engine, event.key, event.prompt_token_ids))

    def _failed(self, part: str, error: Exception) -> None:
        self._metrics.failures.labels(part="loop").inc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        held = self._limited.admit(f"{part} {type(error).__name__} {place}")
        if held is not None:
            more = f" ({held} more since the last line)" if held else ""
            log.error("%s: %s at %s: %s%s", part, type(error).__name__, place, error, more)
