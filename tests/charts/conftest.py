"""A Prometheus that has scraped a sidecar and an operator."""

from collections.abc import Iterator

import pytest
from chart_kit import Ask
from metrics_kit import Served, play, sidecar_registry
from prometheus_client import start_http_server

from benchmarks.observe.prometheus import ADVICE, INSTALLED, Prometheus, fill_in
from trail_operator.metrics import Metrics as OperatorMetrics


def happen(operator: OperatorMetrics) -> None:
    """Something of everything in the operator."""
    operator.admissions.labels("skipped", "HostNetwork").inc()
    operator.admission_seconds.observe(0.003)
    operator.withdrawals.labels("image").inc()
    operator.failures.labels("status", "refused").inc()
    operator.certificate_failures.inc()
    operator.watches_up.set(1)
    operator.leader.set(1)
    operator.c.labels("shop/deployment/llama").set(0.2)
    operator.c_changes.inc()
    operator.pods.labels("shop", "llama", "ordering").set(2)


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Answers of a Prometheus between whose two scrapes everything happened that can happen."""
    if not INSTALLED:
        pytest.skip(ADVICE)
    served, operator = Served(tmp_path_factory.mktemp("served")), OperatorMetrics()
    sidecar = sidecar_registry(served)
    play(served)
    happen(operator)
    servers = [start_http_server(0, "127.0.0.1", registry)[0] for registry in (sidecar, operator.registry)]
    targets = {
        f"127.0.0.1:{server.server_port}": {"namespace": namespace, "pod": pod}
        for server, (namespace, pod) in zip(
            servers, [("shop", "llama-0"), ("trail-system", "trail-operator-0")], strict=True
        )
    }
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), targets)
    try:
        prometheus.scrape()
        play(served)
        happen(operator)
        served.load(waiting=1, running=2, kv_usage=0.5, preemptions_total=2, steps_total=80)
        at_s = prometheus.scrape()
        yield lambda query: prometheus.query(fill_in(query), at_s)
    finally:
        prometheus.close()
        for server in servers:
            server.shutdown()
            server.server_close()
        served.close()
