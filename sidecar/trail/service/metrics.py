"""The catalogue of the sidecar's Prometheus metrics, and their endpoint."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from trail.service.policy_box import PolicyBox
from trail.service.tracker import Outcome

if TYPE_CHECKING:
    from trail.service.lane import EngineLane

SHORT_S = (20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 1.0)

_LOAD_GAUGES = {
    "waiting": "Requests that wait in the engine.",
    "running": "Requests that run in the engine.",
    "kv_usage": "Share of the KV cache in use, 0 to 1.",
}
_LOAD_COUNTERS = {
    "preemptions_total": "Preemptions, for want of memory and by policy.",
    "policy_preemptions_total": "Preemptions by policy.",
    "preemptions_denied_total": "Preemptions that a protected request was spared.",
    "recomputed_tokens_total": "Tokens computed again after a preemption.",
    "fallback_steps_total": "Engine steps served first come, first served, for want of a live sidecar.",
    "steps_total": "Engine steps.",
}


class Metrics:
    """Metrics observed as things happen, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.probe_seconds = Histogram(
            "trail_probe_seconds", "Time of one prediction batch.", registry=self.registry, buckets=SHORT_S
        )
        self.prompt_seconds = Histogram(
            "trail_prompt_seconds", "Time of one prompt batch.", registry=self.registry, buckets=SHORT_S
        )
        self.board_delay_seconds = Histogram(
            "trail_board_delay_seconds",
            "Time from a frame's export until its predictions are on the board.",
            registry=self.registry,
            buckets=SHORT_S,
        )
        self.finished = Counter(
            "trail_finished_requests", "Requests that ended.", ["engine", "reason"], registry=self.registry
        )
        self.initial_error = Summary(
            "trail_initial_error_tokens",
            "Absolute error of initial predictions, of requests that ended by themselves or at a limit.",
            registry=self.registry,
        )
        self.refined_error = Summary(
            "trail_refined_error_tokens",
            "Mean absolute error of a request's refined predictions, one observation a request.",
            registry=self.registry,
        )
        self.failures = Counter(
            "trail_failures", "Errors that were caught, by the part they came from.", ["part"],
            registry=self.registry,
        )  # fmt: skip

    def observe_delays(self, delays_us: npt.NDArray[np.float64]) -> None:
        """Takes prediction-to-board delays in microseconds."""
        for delay_us in delays_us:
            self.board_delay_seconds.observe(delay_us / 1e6)

    def observe_outcome(self, engine: int, outcome: Outcome) -> None:
        """Takes a finished request."""
        self.finished.labels(engine=str(engine), reason=outcome.finish_reason or "unknown").inc()
        if outcome.whole and np.isfinite(outcome.initial):
            self.initial_error.observe(abs(outcome.initial - outcome.output_tokens))
        if outcome.whole and np.isfinite(outcome.refined_mae):
            self.refined_error.observe(outcome.refined_mae)


class StateCollector(Collector):
    """Metrics read from the sidecar's state when somebody asks."""

    def __init__(self, lanes: "Iterable[EngineLane]", policy: PolicyBox, mean: Callable[[], float]) -> None:
        self._lanes = tuple(lanes)
        self._policy = policy
        self._mean = mean

    def describe(self) -> Iterable[Metric]:
        """Nothing to check for duplicates beforehand: the names below occur nowhere else."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, one after another."""
        yield from self._of_policy()
        yield from self._of_frames()
        yield from self._of_load()

    def _of_policy(self) -> Iterator[Metric]:
        spec, generation = self._policy.current
        yield InfoMetricFamily("trail_policy", "The policy in force.", value={"name": spec.name})
        yield GaugeMetricFamily("trail_policy_c", "Bound on preemption of the policy in force.", value=spec.c)
        yield GaugeMetricFamily(
            "trail_policy_kappa",
            "Order of the policy adaptive: 0 by arrival, infinity by size.",
            value=spec.kappa,
        )
        yield GaugeMetricFamily("trail_policy_generation", "Policies set so far.", value=generation)
        yield GaugeMetricFamily(
            "trail_mean_initial_tokens", "Running mean of initial predictions.", value=self._mean()
        )

    def _of_frames(self) -> Iterator[Metric]:
        read = CounterMetricFamily("trail_frames_read", "Frames read.", labels=["engine"])
        lost = CounterMetricFamily("trail_frames_lost", "Frames overwritten unread.", labels=["engine"])
        rejected = CounterMetricFamily(
            "trail_frames_rejected", "Frames that could not be used.", labels=["engine", "reason"]
        )
        predictions = CounterMetricFamily("trail_predictions", "Refined predictions.", labels=["engine"])
        ignored = CounterMetricFamily(
            "trail_rows_ignored", "Exported rows that led to no prediction.", labels=["engine", "reason"]
        )
        requests = GaugeMetricFamily("trail_open_requests", "Open requests.", labels=["engine"])
        ordering = GaugeMetricFamily(
            "trail_ordering", "1 while the board orders requests, 0 while it must not.", labels=["engine"]
        )
        wait = GaugeMetricFamily(
            "trail_wait_seconds", "How long the queue is, held at its peak.", labels=["engine"]
        )
        step = GaugeMetricFamily("trail_step_seconds", "Time of an engine step.", labels=["engine"])
        for lane in self._lanes:
            engine = str(lane.engine)
            frames = lane.frames
            read.add_metric([engine], frames.read)
            lost.add_metric([engine], frames.lost)
            for reason, count in {**frames.rejected, "torn": frames.torn}.items():
                rejected.add_metric([engine, reason], count)
            predictions.add_metric([engine], lane.counters.predictions)
            for reason, count in {**lane.counters.ignored, "unclaimed": lane.pending.dropped}.items():
                ignored.add_metric([engine, reason], count)
            requests.add_metric([engine], len(lane.tracker))
            ordering.add_metric([engine], float(lane.ordering))
            wait.add_metric([engine], lane.pace.wait_s)
            step.add_metric([engine], lane.pace.token_s)
        yield from (read, lost, rejected, predictions, ignored, requests, ordering, wait, step)

    def _of_load(self) -> Iterator[Metric]:
        for name, text in _LOAD_GAUGES.items():
            gauge = GaugeMetricFamily(f"trail_engine_{name}", text, labels=["engine"])
            for lane in self._lanes:
                gauge.add_metric([str(lane.engine)], getattr(lane.load, name))
            yield gauge
        for name, text in _LOAD_COUNTERS.items():
            counter = CounterMetricFamily(f"trail_engine_{name}", text, labels=["engine"])
            for lane in self._lanes:
                counter.add_metric([str(lane.engine)], getattr(lane.load, name))
            yield counter
