"""Pushes the registry to a collector over OTLP, from a thread of its own.

A collector that is away, slow or refuses costs a counter and a line a minute: what is pushed are totals, so
that the next push makes up for one that failed, and nothing is held meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, Counter

import trail
from trail.sidecar.logs import get_logger
from trail.sidecar.telemetry.otlp_families import metrics_of
from trail.sidecar.telemetry.otlp_resource import resource_of
from trail.sidecar.telemetry.otlp_settings import OtlpSettings
from trail.wire.log_lines import RateLimited

log = get_logger()


class OtlpMetrics:
    """Pushes from `start` to `stop`. `models` gives the model that each engine label stands for."""

    def __init__(
        self,
        settings: OtlpSettings,
        registry: CollectorRegistry,
        models: Callable[[], Mapping[str, str]],
        exporter: MetricExporter | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._models = models
        # It says the same at every failure; one line of ours a minute is enough.
        logging.getLogger("opentelemetry.exporter.otlp.proto.grpc").setLevel(logging.CRITICAL)
        self._exporter = exporter if exporter is not None else OTLPMetricExporter(settings.endpoint)
        pushes = Counter("trail_otlp_pushes", "Pushes of metrics over OTLP.", ["result"], registry=registry)
        self._sent, self._failed = pushes.labels(result="sent"), pushes.labels(result="failed")
        self._resource = resource_of(settings.place)
        self._start_ns = time.time_ns()
        self._reached = False
        self._limited = RateLimited()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-otlp", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        for doubt in self._settings.doubts:
            log.warning("%s", doubt)
        log.info("metrics to %s every %g s", self._settings.endpoint, self._settings.interval_s)
        self._thread.start()

    def stop(self, wait_s: float = 0.3) -> None:
        """Pushes a last time where the collector was there before, and breaks off what takes longer."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        self._exporter.shutdown()

    def push(self) -> bool:
        """One push; whether the collector has taken it."""
        try:
            problem = self._export()
        except Exception as error:  # noqa: BLE001 - the next push comes
            problem = f"{type(error).__name__}: {error}"
        self._reached = not problem
        if problem:
            self._failed.inc()
            if not self._stop.is_set() and self._limited.admit("push") is not None:
                log.warning("metrics do not reach %s: %s", self._settings.endpoint, problem)
        else:
            self._sent.inc()
        return self._reached

    def _export(self) -> str:
        metrics = metrics_of(
            self._registry.collect(),
            start_ns=self._start_ns,
            now_ns=time.time_ns(),
            models=self._models(),
        )
        scope = ScopeMetrics(InstrumentationScope("trail", trail.__version__), metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        done = self._exporter.export(data) is MetricExportResult.SUCCESS
        return "" if done else "no answer, or a refusal"

    def _run(self) -> None:
        while not self._stop.wait(self._settings.interval_s):
            self.push()
        if self._reached:
            self.push()
