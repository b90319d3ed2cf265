"""Families of metrics that are read from state when somebody asks."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trail.sidecar.logs import get_logger
from trail.wire.log_lines import RateLimited

log = get_logger()


class MetricSource(Protocol):
    """Gives families of metrics of the present state, from any thread."""

    def families(self) -> Iterator[Metric]:
        """All families, one after another."""
        ...


class StateCollector(Collector):
    """A source as a registry asks for it. Where it fails, what came before is given, and other sources."""

    def __init__(self, source: MetricSource, failures: Counter) -> None:
        """`failures` has the label `part`."""
        self._source = source
        self._failures = failures.labels(part="metrics")
        self._limited = RateLimited()

    def describe(self) -> Iterator[Metric]:
        """Nothing to check for duplicates beforehand: no two sources have a name in common."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The source's families."""
        try:
            yield from self._source.families()
        except Exception as error:  # noqa: BLE001 - the other metrics are worth having
            self._failures.inc()
            name = type(self._source).__name__
            if self._limited.admit(name) is not None:
                log.error("%s gives no more metrics for now: %r", name, error)  # noqa: TRY400 - says it all


def gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge with one label, without the values that are not known (NaN)."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        if value == value:  # noqa: PLR0124 - NaN is not
            family.add_metric([key], value)
    return family


def plain_gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels; without a value where it is not known (NaN)."""
    family = GaugeMetricFamily(name, text, labels=[])
    if value == value:  # noqa: PLR0124 - NaN is not
        family.add_metric([], value)
    return family


def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    """A counter with labels, to be filled."""
    return CounterMetricFamily(name, text, labels=labels)
