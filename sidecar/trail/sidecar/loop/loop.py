"""The sidecar's one loop: events and frames in, ranks out, and the heartbeat that vouches for both."""

import queue
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trail.sidecar.logs import get_logger
from trail.sidecar.loop.counters import Metrics
from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.loop.prompting import PromptJob, PromptWorker
from trail.sidecar.loop.rests import Rests
from trail.sidecar.pacing import Pacing
from trail.wire.lifecycle import Event
from trail.wire.log_lines import RateLimited

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
    """Drives the pipelines. `step` does one round without waiting; `run` repeats it in the calling thread.

    A pipeline beats in its own step, after its predictions are on the board: a step that fails or hangs is
    silence, and silence makes the engine fall back.
    """

    def __init__(
        self,
        pipelines: Mapping[int, EnginePipeline],
        inbox: Inbox,
        prompts: PromptWorker | None,
        metrics: Metrics,
        pacing: Pacing,
    ) -> None:
        self._pipelines = pipelines
        self._inbox = inbox
        self._prompts = prompts
        self._metrics = metrics
        self._pacing = pacing
        self._limited = RateLimited()
        self._whole = False
        self.last_round_ns = 0

    def step(self) -> bool:
        """One round; True when there was something to do."""
        busy = self._hear()
        whole = True
        for pipeline in self._pipelines.values():
            try:
                busy = pipeline.step() or busy
            except Exception as error:  # noqa: BLE001 - the loop outlives any error of a round
                whole = False
                self._failed(f"engine {pipeline.engine}", error)
        self._whole = whole
        if whole:
            self.last_round_ns = time.monotonic_ns()
        return busy

    def run(self, stop: threading.Event) -> None:
        """Repeats `step` until `stop`, with pauses as in `rests`; longer ones while nobody is in a hurry."""
        rests = Rests(self._pacing)
        while not stop.is_set():
            began_s, began_cpu_s = time.monotonic(), time.thread_time()
            try:
                busy = self.step()
                cpu_s, wall_s = time.thread_time() - began_cpu_s, time.monotonic() - began_s
                rest_s = rests.after(busy, cpu_s, wall_s)
                idle = self._idle()
                unhurried = idle or self._settled()
                if unhurried:
                    rest_s = self._pacing.loop_rest_unhurried_s
                if busy or unhurried:
                    self._say_interval(rest_s)
                self._rest(stop, rest_s, idle=idle)
            except Exception as error:  # noqa: BLE001 - the loop outlives any error of a round
                self._failed("loop", error)
                stop.wait(self._pacing.loop_look_most_s)

    def _idle(self) -> bool:
        """Whether nobody waits for any engine. A pipeline that fails must not go on beating."""
        return self._whole and all(pipeline.look_idle() for pipeline in self._pipelines.values())

    def _settled(self) -> bool:
        """Whether nothing is lost by older predictions of running requests."""
        return self._whole and all(pipeline.settled for pipeline in self._pipelines.values())

    def _rest(self, stop: threading.Event, rest_s: float, *, idle: bool) -> None:
        """Pauses, or until somebody waits again; hears of requests, publishes what that changes and beats
        meanwhile."""
        beat_s, until_s = self._pacing.beat_every_s, time.monotonic() + rest_s
        while (left_s := until_s - time.monotonic()) > 0:
            if stop.wait(min(left_s, beat_s)) or left_s <= beat_s:
                return
            self._hear()
            if idle and not self._idle():
                self._say_interval(self._pacing.loop_rest_least_s)
                return
            if self._whole:
                for pipeline in self._pipelines.values():
                    pipeline.publish()

    def _hear(self) -> bool:
        """Takes in the events and prompt predictions that have come; True when there were any."""
        deliveries = self._inbox.drain(_EVENTS_A_STEP)
        for delivery in deliveries:
            self._deliver(delivery)
        if self._prompts is None:
            return bool(deliveries)
        for pipeline in self._pipelines.values():
            for key, token_ids in pipeline.claim_prompts():
                self._prompts.submit(PromptJob(pipeline.engine, key, token_ids))
        results = self._prompts.drain()
        for result in results:
            self._pipelines[result.engine].tracker.set_prompt_prediction(result.key, result.tokens)
        return bool(deliveries or results)

    def _say_interval(self, interval_s: float) -> None:
        for pipeline in self._pipelines.values():
            pipeline.say_interval(int(interval_s * 1e9))

    def _deliver(self, delivery: Delivery) -> None:
        pipeline = self._pipelines[delivery.engine]
        for event in delivery.events:
            try:
                pipeline.apply(event, delivery.session)
            except Exception as error:  # noqa: BLE001 - one bad event must not cost the others
                self._failed(f"engine {pipeline.engine}", error)
            self._beat_where_due()

    def _beat_where_due(self) -> None:
        """A burst of requests takes longer to hear of than the engine waits for a heartbeat."""
        if not self._whole:
            return
        due_ns = time.monotonic_ns() - int(self._pacing.beat_every_s * 1e9)
        for pipeline in self._pipelines.values():
            if pipeline.beat_ns is not None and pipeline.beat_ns < due_ns:
                pipeline.beat()

    def _failed(self, part: str, error: Exception) -> None:
        self._metrics.failures.labels(part="loop").inc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        held = self._limited.admit(f"{part} {type(error).__name__} {place}")
        if held is not None:
            more = f" ({held} more since the last line)" if held else ""
            log.error("%s: %s at %s: %s%s", part, type(error).__name__, place, error, more)
