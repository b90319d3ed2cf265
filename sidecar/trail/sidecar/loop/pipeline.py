"""One engine core as the sidecar sees it: its ring, its board, and its open requests."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trail.policy.queue_estimate import QueueEstimate
from trail.policy.ranks import Terms
from trail.policy.spec import PolicySpec
from trail.sidecar.history.timelines import Timelines
from trail.sidecar.logs import get_logger
from trail.sidecar.loop.board_rows import board_rows, gittins_of
from trail.sidecar.loop.counters import Metrics
from trail.sidecar.loop.pending import PendingRows, Rows
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.loop.prediction import PredictionCounters, Predictor
from trail.sidecar.loop.rests import KV_FULL, Idle, YieldCore
from trail.sidecar.pacing import Pacing
from trail.sidecar.quality.feed import QualityFeed
from trail.sidecar.quality.monitor import Basis, QualityMonitor
from trail.sidecar.requests.stats import DelayMeter, RunStats
from trail.sidecar.requests.tracker import RequestTracker, RunningMean, Source
from trail.wire.board import BoardHeader, BoardWriter
from trail.wire.frames import Frame, FrameCounters, FrameReader
from trail.wire.lifecycle import Changed, Clocks, Event, Finished, Hello, Load, Started, StreamEnded
from trail.wire.names import ENV_LAYERS

log = get_logger()


@dataclass(frozen=True)
class Expected:
    """What the predictor was trained on: the hidden size and layer that engines must export."""

    hidden_size: int
    layer: int


@dataclass(frozen=True)
class Telemetry:
    """Where measurements go: the metrics endpoint, and the stats file."""

    metrics: Metrics
    stats: RunStats


class EnginePipeline:
    """Events and frames in, ranks out. Used by one thread; others may read its counters.

    `problem` says in a sentence why no predictions are made for this engine, None when all is well; the
    board then tells the engine to keep its own order.
    """

    def __init__(
        self,
        engine: int,
        *,
        board: BoardWriter,
        ring: FrameReader | None,
        expected: Expected | None,
        bins: int,
        mean: RunningMean,
        policy: PolicyBox,
        telemetry: Telemetry,
        epoch: int,
        pacing: Pacing,
        quality: QualityMonitor | None = None,
        orphan_timeout_s: float = 60.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.engine = engine
        self.tracker = RequestTracker(board.capacity, bins, mean)
        self.timelines = Timelines(engine, self.tracker, clock)
        self.pending = PendingRows(int(pacing.unclaimed_rows_s * 1e9))
        self.counters = PredictionCounters()
        self.queue_estimate = QueueEstimate(pacing.queue_look_every_s)
        self.predictor: Predictor | None = None
        self.hello: Hello | None = None
        self.load = Load()
        self.problem: str | None = None
        self.session = 0
        self._board = board
        self._ring = ring
        self._expected = expected
        self._mean = mean
        self._policy = policy
        self._telemetry = telemetry
        self._quality = quality if quality is not None else QualityMonitor(None)
        self._found = self._quality.findings
        feed = QualityFeed(self._quality, lambda key: self.tracker.slot_of(key) is not None)
        self.timelines.listeners += [telemetry.metrics, telemetry.stats, feed]
        self._epoch = epoch
        self._orphan_timeout_ns = int(orphan_timeout_s * 1e9)
        self._orphaned_ns: int | None = None
        self._clock = clock
        self._yield_core = YieldCore(pacing)
        self._delays = DelayMeter()
        self._idle = Idle(pacing)
        self._opened: set[int] = set()
        self._header: BoardHeader | None = None
        self._beat_ns: int | None = None

    @property
    def frames(self) -> FrameCounters:
        """Counters of the ring; all zero without one."""
        return self._ring.counters if self._ring is not None else FrameCounters()

    @property
    def ordering(self) -> bool:
        """Whether the board tells the engine to order its requests."""
        return self._policy.current[0].orders and self.problem is None and self.basis is not Basis.ARRIVAL

    @property
    def basis(self) -> Basis:
        """What requests are ranked by, as the quality of predictions stands."""
        return self._quality.basis(self._policy.current[0], self._found.standing)

    def look_idle(self) -> bool:
        """Whether nobody has waited for this engine of late, so that nothing depends on how soon predictions
        are made."""
        return self._idle.look(
            self._clock(),
            open_requests=len(self.tracker),
            slots=self.hello.max_running if self.hello is not None else 0,
            waiting=self.load.waiting,
            kv_usage=self.load.kv_usage,
        )

    @property
    def settled(self) -> bool:
        """Whether no running request could give way for another, whatever is predicted of it."""
        return not self._policy.current[0].gives_way and self.load.kv_usage < KV_FULL

    @property
    def beat_ns(self) -> int | None:
        """When it last told the engine that predictions are being made (CLOCK_MONOTONIC), None before."""
        return self._beat_ns

    def apply(self, event: Event, session: int) -> None:
        """Takes one event of the stream `session`.

        Events of another stream than the latest that said hello are ignored. Raises ValueError for a
        request that no board row can hold.
        """
        if isinstance(event, Hello):
            self._greet(event, session)
        elif session != self.session:
            return
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Changed):
            self.timelines.change(event)
        elif isinstance(event, Clocks):
            self.timelines.clocks(event)
        elif isinstance(event, Finished):
            by_prompt = self.basis is Basis.PROMPT
            self.timelines.end(event, *self._policy.current, by_prompt=by_prompt)
        elif isinstance(event, Load):
            self.load = event
        elif isinstance(event, StreamEnded):
            self._orphaned_ns = self._clock()

    def claim_prompts(self) -> list[tuple[int, tuple[int, ...]]]:
        """Keys and token ids of requests that want a prompt prediction, each once; none while nobody waits.

        A request of which the probe has seen the prompt by then keeps the probe's prediction, unless the
        probe is not trusted.
        """
        tracker = self.tracker
        if not tracker.unpredicted or self.look_idle():
            return []
        slots = tracker.slots_of(tracker.unpredicted)
        enough = Source.PROBE if self._found.standing.probe else Source.PROMPT
        without = tracker.source[slots] < enough
        claimed = [item for item, wanted in zip(tracker.unpredicted.items(), without, strict=True) if wanted]
        tracker.unpredicted.clear()
        return claimed

    def step(self) -> bool:
        """Reads what the ring holds, predicts, publishes what changed, and beats; True when frames came."""
        now_ns = self._clock()
        self._drop_orphans(now_ns)
        frames = self._ring.read() if self._ring is not None else []
        if frames:
            steps, times_ns = _steps(frames)
            self._telemetry.stats.delay_steps.add(self._delays.read(steps, times_ns))
            self.queue_estimate.stepped(steps, times_ns)
        self._yield_core()
        self._apply_quality()
        self._predict(frames, now_ns)
        self._yield_core()
        self._estimate_queue(now_ns)
        self.publish()
        if frames:
            delays_us = self._delays.published(steps, times_ns, self._clock())
            self._telemetry.stats.delay_us.add(delays_us)
            self._telemetry.metrics.observe_delays(delays_us)
        return bool(frames)

    def publish(self) -> None:
        """Puts on the board what has changed since the last time, and beats."""
        spec, generation = self._policy.current
        header = BoardHeader(
            epoch=self._epoch, heartbeat_ns=0, generation=generation, **vars(self._terms(spec))
        )
        tracker = self.tracker
        if self._header is None or self._header.generation != generation:
            tracker.dirty[tracker.open_slots()] = True
        slots = np.flatnonzero(tracker.dirty)
        if len(slots) or header != self._header:
            gittins = gittins_of(spec, tracker, slots, self.predictor)
            rows = board_rows(spec, tracker, slots, gittins, self.basis)
            self._board.publish(slots, rows, header)
            tracker.dirty[slots] = False
            self._header = header
            self.timelines.published(slots, rows, spec)
        self.beat()

    def beat(self) -> None:
        """Tells engine and worker that predictions are being made."""
        now_ns = self._clock()
        if self._beat_ns is not None:
            self._telemetry.stats.beat_us.add(np.array([(now_ns - self._beat_ns) / 1e3]))
        self._beat_ns = now_ns
        self._board.beat()
        if self._ring is not None:
            self._ring.beat()

    def say_interval(self, interval_ns: int) -> None:
        """Tells the worker how long it is until the ring is read again."""
        if self._ring is not None:
            self._ring.say_interval(interval_ns)

    def close(self) -> None:
        """Removes ring and board; the engine falls back at once."""
        self._board.close(unlink=True)
        if self._ring is not None:
            self._ring.close(unlink=True)

    def _greet(self, hello: Hello, session: int) -> None:
        self.session = session
        self._orphaned_ns = None
        self.timelines.clear()
        self.hello = hello
        self.problem = self._mismatch(hello)
        if self.problem is None:
            log.info("engine %d connected: vLLM %s, %s", self.engine, hello.vllm_version, hello.model)
        else:
            log.error("engine %d: %s", self.engine, self.problem)

    def _mismatch(self, hello: Hello) -> str | None:
        expected = self._expected
        if expected is None:
            return None
        advice = "requests keep vLLM's own order; give --predictor the one trained for the model being served"
        if hello.hidden_size and hello.hidden_size != expected.hidden_size:
            return (
                f"the model exports hidden size {hello.hidden_size}, the predictor reads"
                f" {expected.hidden_size}; {advice}"
            )
        if hello.layers and expected.layer not in hello.layers:
            exported = ", ".join(map(str, hello.layers))
            return (
                f"vLLM exports layer {exported}, the predictor reads layer {expected.layer};"
                f" set {ENV_LAYERS}={expected.layer} for vLLM; until then requests keep vLLM's own order"
            )
        return None

    def _start(self, event: Started) -> None:
        longest = self.hello.max_model_len - len(event.prompt_token_ids) if self.hello is not None else 0
        if self.timelines.start(event, limit_tokens=max(longest, 0)):
            self._opened.add(event.key)

    def _drop_orphans(self, now_ns: int) -> None:
        if self._orphaned_ns is None or now_ns - self._orphaned_ns < self._orphan_timeout_ns:
            return
        self._orphaned_ns = None
        if len(self.tracker):
            log.warning("engine %d did not come back: %d requests dropped", self.engine, len(self.tracker))
        self.timelines.clear()

    def _apply_quality(self) -> None:
        found = self._quality.findings
        if found is self._found:
            return
        if found.standing != self._found.standing:
            self.tracker.dirty[self.tracker.open_slots()] = True
        self.tracker.use_prompts = found.standing.prompt
        self.tracker.prompt_stretch = found.correction.prompt_stretch
        if self.predictor is not None:
            self.predictor.correction = found.correction
        self._found = found

    def _predict(self, frames: list[Frame], now_ns: int) -> None:
        opened, self._opened = self._opened, set()
        self.pending.expire(now_ns)
        parts = self.pending.claim(opened) if opened and len(self.pending) else []
        parts += [Rows(frame.rows, frame.vectors) for frame in frames]
        if not parts or self.predictor is None or self.problem is not None:
            return
        started_ns = self._clock()
        unknown = self.predictor.update(
            self.tracker, Rows.joined(parts), self.counters, self.beat, self._yield_core
        )
        took_ns = self._clock() - started_ns
        self._telemetry.metrics.probe_seconds.observe(took_ns / 1e9)
        self._telemetry.stats.predict_us.add(np.array([took_ns / 1e3]))
        if len(unknown):
            self.pending.hold(unknown, now_ns)

    def _estimate_queue(self, now_ns: int) -> None:
        tracker, estimate = self.tracker, self.queue_estimate
        if not len(tracker):
            estimate.rested()
        if estimate.due(now_ns):
            estimate.look(now_ns, tracker.queued_tokens(self.load.waiting), tracker.generated_tokens)

    def _terms(self, spec: PolicySpec) -> Terms:
        """What the header says of `spec`; nothing but the engine's own order while there is a problem, or
        while nothing that is predicted can be trusted.

        How long the queue is and the mean prompt go with boosted arrivals alone: the others need no update
        for them.
        """
        estimate = self.queue_estimate
        wait_s, token_s = (estimate.wait_s, estimate.token_s) if spec.boosts else (0.0, 0.0)
        terms = Terms.of(
            spec,
            mean_initial=self._mean.value,
            mean_prompt=self.tracker.mean_prompt.value if spec.boosts else 0.0,
            wait_s=wait_s,
            token_s=token_s,
        )
        if self.problem is None and self.basis is not Basis.ARRIVAL:
            return terms
        return replace(terms, order=False, preempt=False, kv_reserve_tokens=-1.0)


def _steps(frames: list[Frame]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return (
        np.array([frame.step for frame in frames], dtype=np.int64),
        np.array([frame.time_ns for frame in frames], dtype=np.int64),
    )
