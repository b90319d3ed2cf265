"""docs/metrics.md lists what sidecar and operator export, and nothing else."""

from collections.abc import Iterator

from metrics_kit import Listed, Served, labels_of, page, sidecar_registry
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trail.sidecar.loop.counters import Metrics as SidecarMetrics
from trail.sidecar.telemetry.families import StateCollector
from trail.sidecar.telemetry.otlp_families import otlp_unit
from trail_operator.metrics import Metrics as OperatorMetrics


def used(metrics: OperatorMetrics) -> CollectorRegistry:
    """The operator's registry with a sample of every metric."""
    for metric in vars(metrics).values():
        if names := getattr(metric, "_labelnames", ()):
            metric.labels(*["x"] * len(names))
    return metrics.registry


def listed(family: Metric, of: str) -> Listed:
    labels = tuple(sorted(labels_of(family)))
    return Listed(family.type, otlp_unit(family.name), labels, of, family.documentation)


def exported(served: Served) -> dict[str, Listed]:
    both = {"sidecar": sidecar_registry(served), "operator": used(OperatorMetrics())}
    found: dict[str, Listed] = {}
    for of, registry in both.items():
        for family in registry.collect():
            assert family.samples, f"{family.name} has no sample, and so no labels, in this run"
            assert family.name not in found, f"{family.name} is exported twice"
            found[family.name] = listed(family, of)
    return found


def test_the_page_and_the_code_agree(served: Served) -> None:
    on_page, in_code = page(), exported(served)
    assert sorted(on_page) == sorted(in_code)
    for name, found in in_code.items():
        stated = on_page[name]
        assert (stated.kind, stated.unit, sorted(stated.labels), stated.of) == (
            found.kind, found.unit, sorted(found.labels), found.of,
        ), name  # fmt: skip


def test_the_page_says_what_a_scrape_says(served: Served) -> None:
    on_page = page()
    for name, found in exported(served).items():
        assert on_page[name].meaning == found.meaning, name


def test_a_scrape_can_be_read(served: Served) -> None:
    text = generate_latest(sidecar_registry(served)).decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert "trail_pod_backlog_tokens" in names
    assert all(name.startswith("trail_") for name in names)


def test_a_source_that_fails_costs_its_own_metrics_alone() -> None:
    class Broken:
        def families(self) -> Iterator[Metric]:
            metric = Metric("trail_before", "Given before it fails.", "gauge")
            metric.add_sample("trail_before", {}, 1.0)
            yield metric
            raise RuntimeError("broken")

    metrics = SidecarMetrics()
    metrics.registry.register(StateCollector(Broken(), metrics.failures))
    for scrapes in (1, 2):
        assert b"trail_before 1.0" in generate_latest(metrics.registry)
        # The failure of a scrape may show in the next one only.
        assert metrics.registry.get_sample_value("trail_failures_total", {"part": "metrics"}) >= scrapes
