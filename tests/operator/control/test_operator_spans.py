"""A change of c as a span, through the real exporter to a collector in this process."""

import gzip
import threading
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from trail.policy.controller import Pressure
from trail_operator.control.loop import Change
from trail_operator.control.spans import NAME, Spans


class Collector(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    requests: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request.ParseFromString(body)
        self.requests.append((self.path, request))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Tests are told enough by their assertions."""


def pressure() -> Pressure:
    values = {field.name: 0.5 for field in fields(Pressure)}
    return Pressure(**{**values, "gap_s": float("nan")})


CHANGE = Change("shop/deployment/llama", 0.25, 0.8, 17, "recomputation is cheap", pressure())


def test_a_change_arrives_with_its_reason_and_pressure() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        spans = Spans.to(f"http://127.0.0.1:{server.server_port}", "operator-0")
        spans.tell(CHANGE)
        spans.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    ((path, request),) = Collector.requests
    assert path == "/v1/traces"
    (group,) = request.resource_spans
    resource = {a.key: a.value.string_value for a in group.resource.attributes}
    assert resource["service.name"] == "trail-operator"
    assert resource["service.instance.id"] == "operator-0"
    (span,) = group.scope_spans[0].spans
    assert span.name == NAME
    found = {a.key: a.value for a in span.attributes}
    assert found["trail.workload"].string_value == "shop/deployment/llama"
    assert found["trail.c"].double_value == 0.25
    assert found["trail.c.before"].double_value == 0.8
    assert found["trail.c.generation"].int_value == 17
    assert found["trail.c.reason"].string_value == "recomputation is cheap"
    assert found["trail.pressure.usage"].double_value == 0.5
    # What nobody knows is left out.
    assert "trail.pressure.gap_s" not in found


def test_a_collector_that_is_away_costs_nothing_but_the_span(capfd: pytest.CaptureFixture[str]) -> None:
    spans = Spans.to("http://127.0.0.1:1", "operator-0")
    for _ in range(5000):
        spans.tell(CHANGE)
    spans.close()
    assert "Traceback" not in capfd.readouterr().err
