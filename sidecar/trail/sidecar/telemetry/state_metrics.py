"""Metrics of policy, frames, board and decision log, read from the sidecar's state."""

import math
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

import trail
from trail.sidecar.history.decision_log import DecisionLog
from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.pacing import Pacing
from trail.sidecar.telemetry.families import counter, gauge, plain_gauge


class PolicyMetrics:
    """What is in force."""

    def __init__(self, policy: PolicyBox, mean: Callable[[], float], pacing: Pacing) -> None:
        """`mean` gives the running mean of initial predictions, in tokens."""
        self._policy = policy
        self._mean = mean
        self._pacing = pacing

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        spec, generation = self._policy.current
        yield InfoMetricFamily("trail_build", "The sidecar's version.", value={"version": trail.__version__})
        yield InfoMetricFamily(
            "trail_pacing", "How often the sidecar does things.", value={"profile": self._pacing.name}
        )
        yield InfoMetricFamily(
            "trail_policy", "The policy in force; `text` with its parameters.",
            value={"name": spec.name, "text": spec.text},
        )  # fmt: skip
        yield plain_gauge("trail_policy_c", "Bound on preemption of the policy in force.", spec.c)
        yield plain_gauge(
            "trail_policy_kappa", "Order of the policy adaptive: 0 by arrival, infinity by size.", spec.kappa
        )
        yield plain_gauge("trail_policy_generation", "Policies set so far.", generation)
        yield plain_gauge("trail_mean_initial_tokens", "Running mean of initial predictions.", self._mean())


class FrameMetrics:
    """What comes from the engines' frames, and what of it goes on their boards."""

    def __init__(
        self, pipelines: Iterable[EnginePipeline], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._pipelines = tuple(pipelines)
        self._clock = clock

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        yield from self._read()
        yield from self._published()

    def _read(self) -> Iterator[Metric]:
        read = counter("trail_frames_read", "Frames read.", "engine")
        lost = counter("trail_frames_lost", "Frames overwritten unread.", "engine")
        rejected = counter("trail_frames_rejected", "Frames that could not be used.", "engine", "reason")
        predictions = counter("trail_predictions", "Refined predictions.", "engine")
        ignored = counter(
            "trail_rows_ignored", "Exported rows that led to no prediction.", "engine", "reason"
        )
        for pipeline in self._pipelines:
            engine, frames = str(pipeline.engine), pipeline.frames
            read.add_metric([engine], frames.read)
            lost.add_metric([engine], frames.lost)
            for reason, count in {**frames.rejected, "torn": frames.torn}.items():
                rejected.add_metric([engine, reason], count)
            predictions.add_metric([engine], pipeline.counters.predictions)
            for reason, count in {**pipeline.counters.ignored, "unclaimed": pipeline.pending.dropped}.items():
                ignored.add_metric([engine, reason], count)
        yield from (read, lost, rejected, predictions, ignored)

    def _published(self) -> Iterator[Metric]:
        now_ns = self._clock()
        pipelines = {str(pipeline.engine): pipeline for pipeline in self._pipelines}
        yield gauge(
            "trail_ordering", "1 while the board orders requests, 0 while it must not.", "engine",
            {name: float(pipeline.ordering) for name, pipeline in pipelines.items()},
        )  # fmt: skip
        yield gauge(
            "trail_engine_problem", "1 while no predictions are made for an engine; the log says why.",
            "engine", {name: float(pipeline.problem is not None) for name, pipeline in pipelines.items()},
        )  # fmt: skip
        yield gauge(
            "trail_heartbeat_age_seconds",
            "Time since the sidecar's last heartbeat; engines wait 0.1 s before they do without.", "engine",
            {name: _age_s(pipeline.beat_ns, now_ns) for name, pipeline in pipelines.items()},
        )  # fmt: skip
        basis = GaugeMetricFamily(
            "trail_basis", "1 for what requests are ranked by at present.", labels=["engine", "basis"]
        )
        for name, pipeline in pipelines.items():
            for one in type(pipeline.basis):
                basis.add_metric([name, one.value], float(one is pipeline.basis))
        yield basis


class DecisionMetrics:
    """What becomes of the decision log's lines."""

    def __init__(self, decisions: DecisionLog) -> None:
        self._decisions = decisions

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        lines = counter("trail_decisions", "Finished requests for the decision log.", "result")
        lines.add_metric(["written"], self._decisions.written)
        lines.add_metric(["dropped"], self._decisions.dropped)
        yield lines


def _age_s(then_ns: int | None, now_ns: int) -> float:
    return max(now_ns - then_ns, 0) / 1e9 if then_ns is not None else math.nan
