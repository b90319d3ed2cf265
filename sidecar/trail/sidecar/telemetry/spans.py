"""From a request that has ended to its span, and to the log-based events of its state changes.

A span is made when its request has ended, with the times of then: only then it is known whether the request
was preempted or waited long, and nothing of tracing is held for requests that are open. Events are log
records that carry the span's context (OpenTelemetry enhancement proposal 4430: span events go away), one a
state change.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    LogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trail import __version__
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.sidecar.telemetry.otlp_resource import resource_of
from trail.sidecar.telemetry.trace_config import TraceConfig
from trail.wire.changes import Cause, Change

SPAN = "trail.schedule"
SCOPE = "trail.sidecar"
_KEPT = "trail.kept"
_BOUNDS = (Change.ARRIVED, Change.ENDED)
"""The span's own beginning and end are no events."""

Attributes = dict[str, Any]


class SpanMaker:
    """Makes spans and events, and hands over those made since the last `take`. Used by one thread."""

    def __init__(self, config: TraceConfig) -> None:
        self._config = config
        self._spans: list[ReadableSpan] = []
        self._events: list[ReadableLogRecord] = []
        resource = resource_of(config.place)
        sampler = _Keeping(ParentBased(TraceIdRatioBased(config.ratio)))
        self._tracers = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(SimpleSpanProcessor(_SpanList(self._spans)))
        self._loggers = LoggerProvider(resource, shutdown_on_exit=False)
        self._loggers.add_log_record_processor(SimpleLogRecordProcessor(_EventList(self._events)))
        self._tracer = self._tracers.get_tracer(SCOPE, __version__)
        self._logger = self._loggers.get_logger(SCOPE, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def make(self, timeline: RequestTimeline) -> None:
        """The span and events of a request that has ended, where it is sampled or kept."""
        parent = self._propagator.extract(timeline.trace_headers, Context())
        kept = self._kept(timeline)
        span = self._tracer.start_span(
            SPAN,
            parent,
            SpanKind.INTERNAL,
            attributes={_KEPT: kept} if kept else None,
            start_time=timeline.starts_ns,
        )
        if not span.is_recording():
            return
        span.set_attributes(summary(timeline))
        if timeline.ending is not None and timeline.ending.finish_reason == "error":
            span.set_status(Status(StatusCode.ERROR))
        within = trace.set_span_in_context(span, parent)
        for moment in sorted(timeline.moments, key=lambda moment: moment.time_ns):
            if moment.change not in _BOUNDS:
                self._logger.emit(
                    LogRecord(
                        timestamp=timeline.wall_ns(moment.time_ns),
                        context=within,
                        severity_number=SeverityNumber.INFO,
                        severity_text="INFO",
                        event_name=f"trail.request.{moment.change.name.lower()}",
                        attributes=event(moment),
                    )
                )
        ended_ns = timeline.summary.ended_ns or timeline.moments[-1].time_ns
        span.end(max(timeline.wall_ns(ended_ns), timeline.starts_ns))

    def take(self) -> tuple[Sequence[ReadableSpan], Sequence[ReadableLogRecord]]:
        """What was made, oldest first."""
        taken = tuple(self._spans), tuple(self._events)
        self._spans.clear()
        self._events.clear()
        return taken

    def _kept(self, timeline: RequestTimeline) -> str:
        """Why a request is traced whatever the sampling, or ''."""
        if self._config.keep_preempted and timeline.preemptions:
            return "preempted"
        return "waited" if timeline.queued_s >= self._config.keep_waited_s else ""


def summary(timeline: RequestTimeline) -> Attributes:
    """The attributes of a span at its end."""
    engine, ending = timeline.summary, timeline.ending
    attributes: Attributes = {
        "trail.request.id": timeline.request_id,
        "trail.engine": timeline.engine,
        "trail.request.priority": timeline.priority,
        "gen_ai.usage.input_tokens": timeline.prompt_tokens,
        "trail.prediction.initial_tokens": timeline.initial,
        "trail.prediction.source": timeline.initial_source.label,
        "trail.prediction.refined_tokens": timeline.refined,
        "trail.cutoff_age": timeline.cutoff if timeline.cutoff >= 0 else math.nan,
        "trail.protected": timeline.protected,
        "trail.rank_at_admission": timeline.admission_rank,
        "trail.wait.admission_seconds": timeline.admission_s,
        "trail.wait.total_seconds": timeline.queued_s,
        "trail.first_token_seconds": timeline.first_token_s,
        "trail.preemptions.granted": engine.granted,
        "trail.preemptions.by_policy": engine.policy_preemptions,
        "trail.preemptions.by_memory": engine.memory_preemptions,
        "trail.preemptions.denied": sorted(cause.label for cause in engine.denied),
        "trail.fallback_steps": engine.fallback_steps,
        "trail.found_open": timeline.found,
    }
    if ending is not None:
        attributes |= {
            "gen_ai.usage.output_tokens": ending.output_tokens,
            "gen_ai.response.finish_reasons": [ending.finish_reason],
            "trail.prediction.refined_mae_tokens": ending.refined_mae,
            "trail.recomputed_tokens": ending.recomputed_tokens,
            "trail.policy": ending.policy.text,
            "trail.policy.generation": ending.generation,
            "trail.c": ending.policy.c,
        }
    return _known(attributes)


def event(moment: Moment) -> Attributes:
    """The attributes of one state change."""
    return _known(
        {
            "trail.age": moment.age,
            "trail.cause": moment.cause.label if moment.cause != Cause.NONE else math.nan,
            "trail.other_request.id": moment.other or math.nan,
            "trail.rank": moment.rank,
            "trail.prediction.remaining_tokens": moment.remaining,
            "trail.cutoff_age": moment.cutoff if moment.cutoff >= 0 else math.nan,
        }
    )


def _known(attributes: Mapping[str, Any]) -> Attributes:
    """Without what is not known (NaN)."""
    return {
        name: value
        for name, value in attributes.items()
        if not (isinstance(value, float) and math.isnan(value))
    }


class _Keeping(Sampler):
    """Samples what is marked as kept, and whatever another sampler samples."""

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> SamplingResult:
        if attributes and _KEPT in attributes:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._otherwise.should_sample(
            parent_context, trace_id, name, kind, attributes, *args, **kwargs
        )

    def get_description(self) -> str:
        return f"Keeping({self._otherwise.get_description()})"


class _SpanList(SpanExporter):
    def __init__(self, spans: list[ReadableSpan]) -> None:
        self._kept = spans

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._kept.extend(spans)
        return SpanExportResult.SUCCESS


class _EventList(LogRecordExporter):
    def __init__(self, events: list[ReadableLogRecord]) -> None:
        self._kept = events

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._kept.extend(batch)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing waits."""
        return True

    def shutdown(self) -> None:
        """Nothing is open."""
