"""An OTLP receiver in this process: spans and events over gRPC, kept in memory. No collector is needed."""

import threading
import time
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

_THREADS = 8


@dataclass(frozen=True)
class ReceivedSpan:
    """A span. Ids are hexadecimal, `parent_id` empty for a root; times are wall clock in nanoseconds."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class ReceivedEvent:
    """A log record with an event's name, correlated with a span."""

    name: str
    service: str
    trace_id: str
    span_id: str
    time_ns: int
    attributes: Mapping[str, Any]


class Receiver:
    """A server on loopback from `start` to `stop`; `spans` and `events` are what came, oldest first.

    To see what senders do with a bad collector: `delay_s` makes each answer wait, `error` (a gRPC status
    code) takes its place. Both may be changed at any time.
    """

    def __init__(self, port: int = 0) -> None:
        """`port` 0: the system chooses."""
        self.delay_s = 0.0
        self.error: grpc.StatusCode | None = None
        self.calls = 0
        self._lock = threading.Lock()
        self._spans: list[ReceivedSpan] = []
        self._events: list[ReceivedEvent] = []
        self._server = grpc.server(
            futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="otlp-receiver"),
            options=[("grpc.so_reuseport", 0)],
        )
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _Traces(self), self._server
        )
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _Logs(self), self._server
        )
        self.port: int = self._server.add_insecure_port(f"127.0.0.1:{port}")

    @property
    def endpoint(self) -> str:
        """What senders are given."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Spans so far."""
        with self._lock:
            return self._spans.copy()

    @property
    def events(self) -> list[ReceivedEvent]:
        """Events so far."""
        with self._lock:
            return self._events.copy()

    def start(self) -> "Receiver":
        """Begin to listen."""
        self._server.start()
        return self

    def stop(self) -> None:
        """End at once; senders meet a closed port."""
        self._server.stop(None).wait()

    def take(self, spans: list[ReceivedSpan], events: list[ReceivedEvent], context: Any) -> None:
        """Keep what a call brought, or misbehave as told."""
        self.calls += 1
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.error is not None:
            context.abort(self.error, "the receiver was told to refuse")
        with self._lock:
            self._spans += spans
            self._events += events


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        spans = [
            ReceivedSpan(
                name=span.name,
                service=_service(group.resource),
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                start_ns=span.start_time_unix_nano,
                end_ns=span.end_time_unix_nano,
                attributes=_attributes(span.attributes),
            )
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        self._receiver.take(spans, [], context)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        events = [
            ReceivedEvent(
                name=record.event_name,
                service=_service(group.resource),
                trace_id=record.trace_id.hex(),
                span_id=record.span_id.hex(),
                time_ns=record.time_unix_nano,
                attributes=_attributes(record.attributes),
            )
            for group in request.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]
        self._receiver.take([], events, context)
        return logs_service_pb2.ExportLogsServiceResponse()


def _service(resource: Any) -> str:
    return str(_attributes(resource.attributes).get("service.name", ""))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None
