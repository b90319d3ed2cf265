"""Traces: one `trail.schedule` span a request, sent by a thread of its own.

The loop appends a timeline to a queue when it has ended, and no more. A collector that is slow, away or
refuses costs spans, which are counted, and nothing else.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from trail.sidecar.logs import get_logger
from trail.sidecar.loop.rests import YieldCore
from trail.sidecar.pacing import Pacing
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.sidecar.telemetry.trace_config import TraceConfig

QUEUE_SIZE = 4096
"""Requests that wait to be sent; what ends while it is full is dropped."""
BATCH = 256

log = get_logger()


class SpanMakerLike(Protocol):
    """What makes spans of timelines (`trail.sidecar.telemetry.spans.SpanMaker`)."""

    def make(self, timeline: RequestTimeline) -> None:
        """The span of one timeline, if it is sampled."""
        ...

    def take(self) -> tuple[Any, Any]:
        """Spans and events made since the last call."""
        ...


class Tracing:
    """A `TimelineListener` and the thread behind it.

    `spans` and `events` count what the collector took; `dropped` counts spans by reason: `queue` (the
    collector is too slow), `export` (it refused, or did not answer in time), `failed` (ours), `shutdown`.
    """

    def __init__(
        self,
        maker: SpanMakerLike,
        send_spans: Callable[[Any], bool],
        send_events: Callable[[Any], bool],
        where: str,
        pacing: Pacing,
    ) -> None:
        """`send_spans` and `send_events` send a batch to `where` and say whether it was taken."""
        self.spans = 0
        self.events = 0
        self.dropped = {"queue": 0, "export": 0, "failed": 0, "shutdown": 0}
        self.dropped_events = 0
        self._maker = maker
        self._send_spans = send_spans
        self._send_events = send_events
        self._where = where
        self._queue: deque[RequestTimeline] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-traces", daemon=True)
        self._every_s = pacing.traces_send_every_s
        self._yield_core = YieldCore(pacing)
        self._well = True

    def moment(self, timeline: RequestTimeline, _moment: Moment) -> None:
        """Called by the loop for every change; only the end counts."""
        if not timeline.ended:
            return
        if len(self._queue) >= QUEUE_SIZE:
            self.dropped["queue"] += 1
        else:
            self._queue.append(timeline)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, wait_s: float = 1.0) -> None:
        """Send what is left as far as `wait_s` allows, and count the rest."""
        self._stop.set()
        self._thread.join(wait_s)
        self.dropped["shutdown"] += len(self._queue)

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.wait(self._every_s)
            while self._queue:
                self._send()

    def _send(self) -> None:
        """Send one batch."""
        timelines = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH))]
        for timeline in timelines:
            try:
                self._maker.make(timeline)
            except Exception as error:  # noqa: BLE001 - a span that cannot be made is one span less
                self.dropped["failed"] += 1
                self._say(well=False, why=f"{type(error).__name__}: {error}")
            self._yield_core()
        spans, events = self._maker.take()
        if spans:
            if self._try(self._send_spans, spans):
                self.spans += len(spans)
            else:
                self.dropped["export"] += len(spans)
                self.dropped_events += len(events)
                return  # events are worth nothing without their span
        if events:
            if self._try(self._send_events, events):
                self.events += len(events)
            else:
                self.dropped_events += len(events)

    def _try(self, send: Callable[[Any], bool], batch: Any) -> bool:
        try:
            taken, why = send(batch), "it does not answer, or refuses"
        except Exception as error:  # noqa: BLE001 - whatever the exporter does, the thread goes on
            taken, why = False, f"{type(error).__name__}: {error}"
        self._say(well=taken, why=why)
        return taken

    def _say(self, *, well: bool, why: str) -> None:
        if well == self._well:
            return
        self._well = well
        if well:
            log.info("traces: %s takes spans again; %d were dropped", self._where, sum(self.dropped.values()))
        else:
            log.warning("traces: %s takes no spans (%s); dropped ones are counted", self._where, why)


def make_tracing(config: TraceConfig, pacing: Pacing) -> Tracing:
    """Tracing to the configured collector. Raises ImportError where OpenTelemetry is not installed."""
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs.export import LogRecordExportResult
    from opentelemetry.sdk.trace.export import SpanExportResult

    from trail.sidecar.telemetry.spans import SpanMaker

    # The exporters log every failed batch; ours is one line when the state changes.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    insecure = None if os.environ.get("OTEL_EXPORTER_OTLP_INSECURE") else "://" not in config.endpoint or None
    spans = OTLPSpanExporter(endpoint=config.endpoint, insecure=insecure)
    events = OTLPLogExporter(endpoint=config.endpoint, insecure=insecure)
    return Tracing(
        SpanMaker(config),
        lambda batch: spans.export(batch) == SpanExportResult.SUCCESS,
        lambda batch: events.export(batch) == LogRecordExportResult.SUCCESS,
        config.endpoint,
        pacing,
    )


class TraceCollector(Collector):
    """What became of spans and events, as metrics."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def describe(self) -> Iterable[Metric]:
        """Nothing to check for duplicates beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        tracing = self._tracing
        yield CounterMetricFamily("trail_spans_sent", "Spans the collector took.", value=tracing.spans)
        yield CounterMetricFamily(
            "trail_span_events_sent", "Events the collector took.", value=tracing.events
        )
        dropped = CounterMetricFamily("trail_spans_dropped", "Spans that were lost.", labels=["reason"])
        for reason, count in tracing.dropped.items():
            dropped.add_metric([reason], count)
        yield dropped
        yield CounterMetricFamily(
            "trail_span_events_dropped", "Events that were lost.", value=tracing.dropped_events
        )
