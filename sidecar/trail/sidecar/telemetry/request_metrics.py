"""Metrics of what requests go through, taken as it happens."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from trail.policy.ranks import UNCOMPUTED_SHARE
from trail.policy.spec import PolicySpec
from trail.predict.rolling import LENGTH_EDGES, LENGTHS
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.sidecar.telemetry.passed_over import PassedOver
from trail.wire.changes import Change

REQUEST_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds that OpenTelemetry advises for `gen_ai.server.request.duration`."""
FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
)  # fmt: skip
"""Those for `gen_ai.server.time_to_first_token`, and three more for queues that are longer than 10 s."""
TOKEN_S = (
    0.001, 0.0025, 0.005,
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
"""Those for `gen_ai.server.time_per_output_token`, and three more for small models."""
QUEUE_S = (0.001, 0.0025, 0.005, *REQUEST_S)


class RequestMetrics:
    """Counts and times of requests, a `TimelineListener`. `spec` gives the policy in force."""

    def __init__(self, registry: CollectorRegistry, spec: Callable[[], PolicySpec]) -> None:
        self._spec = spec
        self._passed: defaultdict[tuple[int, int], PassedOver] = defaultdict(PassedOver)
        self._preempted = Counter(
            "trail_preemptions", "Preemptions, by cause.", ["engine", "cause"], registry=registry
        )
        self._guarded = Counter(
            "trail_guard_admissions",
            "Requests that waited while the guard of the tail let a longer one go first.",
            ["engine"], registry=registry,
        )  # fmt: skip
        self._queue = Histogram(
            "trail_queue_seconds", "Time in the queue, all waits of a request together, by its length.",
            ["engine", "length"], registry=registry, buckets=QUEUE_S,
        )  # fmt: skip
        self._service = Histogram(
            "trail_service_seconds", "Time in which a request ran.", ["engine"],
            registry=registry, buckets=REQUEST_S,
        )  # fmt: skip
        self._first_token = Histogram(
            "trail_first_token_seconds", "Time from arrival to the first token.", ["engine"],
            registry=registry, buckets=FIRST_TOKEN_S,
        )  # fmt: skip
        self._token = Histogram(
            "trail_token_seconds", "Time a token after the first, mean of a request.", ["engine"],
            registry=registry, buckets=TOKEN_S,
        )  # fmt: skip
        self._request = Histogram(
            "trail_request_seconds", "Time from arrival to the end.", ["engine", "reason"],
            registry=registry, buckets=REQUEST_S,
        )  # fmt: skip

    def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
        """Takes what happened to a request: some microseconds at its end, next to none before."""
        change = moment.change
        if change == Change.PREEMPTED:
            self._preempted.labels(str(timeline.engine), moment.cause.label).inc()
        elif change == Change.ADMITTED:
            self._admitted(timeline, moment)
        elif change == Change.ENDED:
            self._ended(timeline)

    def _admitted(self, timeline: RequestTimeline, moment: Moment) -> None:
        """With boosted arrivals alone age can outweigh size; deadlines do, too."""
        spec, queued_ns = self._spec(), timeline.summary.queued_ns
        work = moment.remaining + UNCOMPUTED_SHARE * (timeline.prompt_tokens + moment.age)
        if not spec.boosts or not queued_ns or not work > 0:  # nothing is predicted: NaN
            return
        passed = self._passed[timeline.engine, timeline.priority]
        if passed.admitted(queued_ns, moment.time_ns, work):
            self._guarded.labels(str(timeline.engine)).inc()

    def _ended(self, timeline: RequestTimeline) -> None:
        ending, summary, engine = timeline.ending, timeline.summary, str(timeline.engine)
        if ending is None:
            return
        if timeline.total_s >= 0:
            self._request.labels(engine, ending.finish_reason or "unknown").observe(timeline.total_s)
        # An older engine tells no times; an answer that was broken off says nothing of how long one takes.
        if not ending.whole or not summary.queued_ns:
            return
        length = LENGTHS[bisect_right(LENGTH_EDGES, ending.output_tokens)]
        self._queue.labels(engine, length).observe(timeline.queued_s)
        served_ns = summary.ended_ns - summary.queued_ns - summary.waited_ns
        self._service.labels(engine).observe(max(served_ns, 0) / 1e9)
        if summary.first_token_ns:
            self._first_token.labels(engine).observe(max(timeline.first_token_s, 0.0))
            if ending.output_tokens > 1:
                after_s = (summary.ended_ns - summary.first_token_ns) / 1e9
                self._token.labels(engine).observe(max(after_s, 0.0) / (ending.output_tokens - 1))
