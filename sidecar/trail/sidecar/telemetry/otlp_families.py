"""Prometheus families as OpenTelemetry's data: the same counts under OpenTelemetry's names.

`trail_queue_seconds` becomes `trail.queue_seconds` with the unit s, and a collector that serves Prometheus
makes the first name of it again. Three have names in the semantic conventions for GenAI and get those.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from prometheus_client import Metric as Family
from prometheus_client.samples import Sample

GENAI = {
    "trail_request_seconds": "gen_ai.server.request.duration",
    "trail_first_token_seconds": "gen_ai.server.time_to_first_token",
    "trail_token_seconds": "gen_ai.server.time_per_output_token",
}
PROVIDER = "vllm"
OPERATION = "text_completion"
"""The engine is given token ids and completes them; whether they were a chat it does not know."""
_UNITS = {"seconds": "s", "tokens": "{token}", "ratio": "1", "requests": "{request}"}
_ERRORS = frozenset({"abort", "error", "unknown"})


def metrics_of(
    families: Iterable[Family], *, start_ns: int, now_ns: int, models: Mapping[str, str]
) -> list[Metric]:
    """All families with samples; times are wall-clock nanoseconds, `models` the model by engine label."""
    found = []
    for family in families:
        samples = [s for s in family.samples if s.value == s.value and not s.name.endswith("_created")]
        if not samples:
            continue
        data: Gauge | Sum | Histogram
        if family.type in ("histogram", "summary"):
            genai = models if family.name in GENAI else None
            points = _histograms(samples, start_ns, now_ns, genai)
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
        elif family.type == "counter":
            numbers = [_number(s, start_ns, now_ns) for s in samples]
            data = Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge([_number(s, start_ns, now_ns) for s in samples])
        found.append(Metric(otlp_name(family.name), family.documentation, otlp_unit(family.name), data))
    return found


def otlp_name(name: str) -> str:
    """The name of a family in OpenTelemetry."""
    return GENAI.get(name) or name.replace("trail_", "trail.", 1)


def otlp_unit(name: str) -> str:
    """Its unit, as UCUM writes it; 1 for what is only counted."""
    return _UNITS.get(name.rsplit("_", 1)[-1], "1")


def _number(sample: Sample, start_ns: int, now_ns: int) -> NumberDataPoint:
    return NumberDataPoint(dict(sample.labels), start_ns, now_ns, float(sample.value))


def _histograms(
    samples: Iterable[Sample], start_ns: int, now_ns: int, genai: Mapping[str, str] | None
) -> list[HistogramDataPoint]:
    groups: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for sample in samples:
        labels = {key: value for key, value in sample.labels.items() if key != "le"}
        values = groups.setdefault(tuple(labels.items()), {})
        values[sample.labels.get("le") or sample.name.rsplit("_", 1)[-1]] = sample.value
    points = []
    for key, values in groups.items():
        count, total = int(values.pop("count")), values.pop("sum")
        upper = sorted((float(bound), int(value)) for bound, value in values.items())
        # Prometheus' buckets hold those below, OpenTelemetry's do not; its last one is without a bound.
        below = [0, *(value for _, value in upper)]
        buckets = [after - before for before, after in pairwise(below)] or [count]
        labels = dict(key)
        points.append(
            HistogramDataPoint(
                attributes=labels if genai is None else _genai(labels, genai),
                start_time_unix_nano=start_ns,
                time_unix_nano=now_ns,
                count=count,
                sum=total,
                bucket_counts=buckets,
                explicit_bounds=[bound for bound, _ in upper[:-1]],
                min=None,  # type: ignore[arg-type]  # not kept; the message has it as optional
                max=None,  # type: ignore[arg-type]
            )
        )
    return points


def _genai(labels: Mapping[str, str], models: Mapping[str, str]) -> dict[str, str]:
    """The attributes that the conventions ask for, beside our own."""
    attributes = {"gen_ai.operation.name": OPERATION, "gen_ai.provider.name": PROVIDER, **labels}
    if model := models.get(labels.get("engine", "")):
        attributes["gen_ai.request.model"] = model
    if (reason := labels.get("reason", "")) in _ERRORS:
        attributes["error.type"] = reason
    return attributes
