"""Changes of c as spans of their own: what was decided, why, and on what pressure.

Off without a collector's address. A collector that is slow or away costs spans and nothing else: a bounded
queue, an exporter in a thread of its own, and one line of log in a while.
"""

import dataclasses
import logging
import math
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from trail_operator.control.loop import Change

NAME = "trail.c.change"
_SERVICE = "trail-operator"
_CLOSE_S = 2.0


class Spans:
    """Sends a span for every change of c."""

    def __init__(self, exporter: SpanExporter, instance: str) -> None:
        """`instance` names this replica."""
        resource = Resource.create({"service.name": _SERVICE, "service.instance.id": instance})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("trail.operator")
        # Its own words come with a traceback at every try.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    @classmethod
    def to(cls, endpoint: str, instance: str) -> "Spans":
        """To an OTLP collector over HTTP, `http://host:4318` or `https://...`."""
        return cls(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces"), instance)

    def tell(self, change: Change) -> None:
        """Queues the span of a change; returns at once."""
        pressure = {} if change.pressure is None else dataclasses.asdict(change.pressure)
        attributes: dict[str, str | float | int] = {
            "trail.workload": change.workload,
            "trail.c": change.c,
            "trail.c.generation": change.generation,
            "trail.c.reason": change.reason,
            **{f"trail.pressure.{name}": value for name, value in pressure.items() if math.isfinite(value)},
        }
        if change.before is not None:
            attributes["trail.c.before"] = change.before
        self._tracer.start_span(NAME, attributes=attributes).end()

    def close(self) -> None:
        """Sends what waits, for a moment at most. Blocks."""
        # The exporter tries an absent collector again and again, far longer than a pod has for its end.
        thread = threading.Thread(target=self._provider.shutdown, name="trail-spans-end", daemon=True)
        thread.start()
        thread.join(_CLOSE_S)
