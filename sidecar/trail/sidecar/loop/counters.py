"""Metrics that are observed as things happen: times of the sidecar's own work, errors, failures.

`sidecar.telemetry.catalogue` puts them together with what is read from state; docs/metrics.md lists them all.
"""

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from trail.sidecar.requests.timeline import Moment, RequestTimeline

SHORT_S = (20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 1.0)


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

    def moment(self, timeline: RequestTimeline, _moment: Moment) -> None:
        """As a `TimelineListener`: takes what ended."""
        ending = timeline.ending
        if ending is None:
            return
        self.finished.labels(engine=str(timeline.engine), reason=ending.finish_reason or "unknown").inc()
        if ending.whole and np.isfinite(timeline.initial):
            self.initial_error.observe(abs(timeline.initial - ending.output_tokens))
        if ending.whole and np.isfinite(ending.refined_mae):
            self.refined_error.observe(ending.refined_mae)
