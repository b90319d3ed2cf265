"""Metrics over OTLP: the same counts, and a collector that can be away, slow or unwilling at no cost."""

import math
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from metrics_kit import Served
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as pb_grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from service_kit import SidecarProcess, until

from trail.sidecar.config import add_arguments, from_arguments
from trail.sidecar.telemetry.otlp_families import GENAI, metrics_of, otlp_name
from trail.sidecar.telemetry.otlp_metrics import OtlpMetrics
from trail.sidecar.telemetry.otlp_settings import OtlpSettings, otlp_settings

MODELS = {"0": "example/small"}


class Collector(pb_grpc.MetricsServiceServicer):
    """A collector on a real gRPC port."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.wait_s = 0.0
        self.refuses = False
        self.let_go = threading.Event()
        self.server: Any = None
        self.port = 0

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        if self.wait_s:
            self.let_go.wait(self.wait_s)
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        self.requests.append(request)
        return pb.ExportMetricsServiceResponse()

    def start(self) -> None:
        self.server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_MetricsServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def stop(self) -> None:
        self.let_go.set()
        self.server.stop(0).wait()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def metrics(self) -> dict[str, Any]:
        """Those of the last request, by name."""
        (resource,) = self.requests[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def resource(self) -> dict[str, str]:
        (resource,) = self.requests[-1].resource_metrics
        return {pair.key: pair.value.string_value for pair in resource.resource.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    collector.start()
    yield collector
    collector.stop()


def attributes(point: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


def pushed(registry: CollectorRegistry, result: str) -> float:
    return registry.get_sample_value("trail_otlp_pushes_total", {"result": result}) or 0.0


def test_a_collector_gets_what_a_scrape_gets(served: Served, collector: Collector) -> None:
    otlp = OtlpMetrics(OtlpSettings(collector.endpoint), served.registry, lambda: MODELS)
    assert otlp.push()
    got = collector.metrics()
    for family in served.registry.collect():
        values = [s for s in family.samples if not math.isnan(s.value) and not s.name.endswith("_created")]
        if not values or family.name == "trail_otlp_pushes":
            continue
        metric = got[otlp_name(family.name)]
        kind = metric.WhichOneof("data")
        points = getattr(metric, kind).data_points
        if family.type in ("histogram", "summary"):
            assert sum(p.count for p in points) == sum(s.value for s in values if s.name.endswith("_count"))
            assert all(sum(p.bucket_counts) == p.count for p in points)
            assert all(len(p.bucket_counts) == len(p.explicit_bounds) + 1 for p in points)
        elif family.name != "trail_heartbeat_age_seconds":  # it grows from look to look
            assert sorted(p.as_double for p in points) == sorted(s.value for s in values), family.name
        assert metric.description == family.documentation
    assert pushed(served.registry, "sent") == 1


def test_names_of_the_conventions_and_their_attributes(served: Served, collector: Collector) -> None:
    OtlpMetrics(OtlpSettings(collector.endpoint), served.registry, lambda: MODELS).push()
    got = collector.metrics()
    assert {name for name in got if name.startswith("gen_ai.")} == set(GENAI.values())
    assert not set(GENAI) & {name.replace(".", "_") for name in got}
    for name in GENAI.values():
        assert got[name].unit == "s"
        for point in got[name].histogram.data_points:
            found = attributes(point)
            assert found["gen_ai.operation.name"] == "text_completion"
            assert found["gen_ai.provider.name"] == "vllm"
            assert found["gen_ai.request.model"] == "example/small"
    requests = got[GENAI["trail_request_seconds"]].histogram.data_points
    ends = {attributes(point).get("error.type", "") for point in requests}
    assert ends == {"", "abort"}


def test_buckets_of_a_histogram_are_told_apart() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("trail_x_seconds", "x", registry=registry, buckets=(0.1, 1.0))
    for value in (0.05, 0.5, 0.6, 7.0):
        histogram.observe(value)
    Summary("trail_y_tokens", "y", registry=registry).observe(4)
    Counter("trail_z", "z", registry=registry).inc(3)
    Gauge("trail_unknown", "NaN is not known", registry=registry).set(math.nan)
    found = {m.name: m for m in metrics_of(registry.collect(), start_ns=1, now_ns=2, models={})}
    assert set(found) == {"trail.x_seconds", "trail.y_tokens", "trail.z"}
    (point,) = found["trail.x_seconds"].data.data_points
    assert (point.bucket_counts, point.explicit_bounds, point.count) == ([1, 2, 1], [0.1, 1.0], 4)
    assert (found["trail.x_seconds"].unit, found["trail.y_tokens"].unit) == ("s", "{token}")
    (point,) = found["trail.y_tokens"].data.data_points
    assert (point.bucket_counts, point.explicit_bounds, point.sum) == ([1], [], 4)
    assert found["trail.z"].data.is_monotonic


def test_a_collector_that_is_away_costs_a_counter_until_it_is_back(
    served: Served, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    collector.stop()
    otlp = OtlpMetrics(OtlpSettings(collector.endpoint), served.registry, lambda: MODELS)
    assert not otlp.push()
    assert not otlp.push()
    assert pushed(served.registry, "failed") == 2
    assert len([r for r in caplog.records if "do not reach" in r.message]) <= 1
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]
    again = Collector()
    again.port = collector.port
    again.start()
    until(otlp.push)
    assert "trail.preemptions" in again.metrics()
    again.stop()


def test_a_collector_that_refuses_costs_a_counter(served: Served, collector: Collector) -> None:
    collector.refuses = True
    otlp = OtlpMetrics(OtlpSettings(collector.endpoint), served.registry, lambda: MODELS)
    assert not otlp.push()
    assert pushed(served.registry, "failed") == 1


def test_a_slow_collector_holds_nobody_up(
    served: Served, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's round and a scrape go on while a push hangs, and the end does not wait for it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    collector.wait_s = 60.0
    otlp = OtlpMetrics(OtlpSettings(collector.endpoint, interval_s=0.01), served.registry, lambda: MODELS)
    otlp.start()
    until(otlp._thread.is_alive)
    time.sleep(0.2)
    served.pipeline.step()
    assert served.value("trail_open_requests", engine="0") == 1
    assert pushed(served.registry, "sent") == 0
    otlp.stop()
    otlp._thread.join(20)
    assert not otlp._thread.is_alive()


def test_an_error_of_ours_is_no_end_of_pushes(collector: Collector) -> None:
    registry = CollectorRegistry()

    def models() -> dict[str, str]:
        raise RuntimeError("broken")

    otlp = OtlpMetrics(OtlpSettings(collector.endpoint), registry, models)
    assert not otlp.push()
    assert pushed(registry, "failed") == 1


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_nothing_is_pushed_unless_an_endpoint_is_stated(environ: dict[str, str]) -> None:
    assert otlp_settings(environ) is None


def test_settings_from_the_environment() -> None:
    common = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317", "TRAIL_POD_NAME": "llama-0"}
    settings = otlp_settings(common)
    assert settings is not None
    assert (settings.endpoint, settings.interval_s, settings.doubts) == ("http://all:4317", 60.0, ())
    assert settings.place["k8s.pod.name"] == "llama-0"
    metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:4317", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    own = otlp_settings({**common, **metrics})
    assert own is not None
    assert (own.endpoint, own.interval_s) == ("http://m:4317", 0.5)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "OTEL_METRIC_EXPORT_INTERVAL"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "gRPC"),
    ],
)
def test_a_wrong_value_is_doubted_and_stops_nothing(variable: str, value: str, named: str) -> None:
    settings = otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", variable: value})
    assert settings is not None
    assert settings.interval_s == 60.0
    assert named in settings.doubts[0]


def test_the_command_takes_them() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "TRAIL_POLICY": "fcfs"})
    config = from_arguments(parser.parse_args([]))
    assert config.otlp is not None
    assert config.otlp.endpoint == "http://c:4317"


def test_a_real_sidecar_pushes(tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    process = SidecarProcess(tmp_path, "--policy", "fcfs")
    try:
        until(lambda: collector.requests, limit_s=60)
    finally:
        code, logged = process.end()
    assert code == 0, logged
    resource = collector.resource()
    assert resource["service.name"] == "trail-sidecar"
    assert resource["deployment.environment"] == "test"
    assert "trail.policy_c" in collector.metrics()
    assert f"metrics to {collector.endpoint} every 0.2 s" in logged
