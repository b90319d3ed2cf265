"""Where metrics are pushed to and where this is, as environment variables say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from trail.wire.names import ENV_POD, ENV_POD_NAMESPACE

DEFAULT_INTERVAL_S = 60.0
_PLACES = {
    ENV_POD: ("service.instance.id", "k8s.pod.name"),
    ENV_POD_NAMESPACE: ("service.namespace", "k8s.namespace.name"),
}


@dataclass(frozen=True)
class OtlpSettings:
    """A collector that speaks OTLP over gRPC, asked every `interval_s`.

    `place` are attributes of the resource that say where this is. `doubts` are sentences on what was not
    taken. Headers, certificates, compression and timeout are read by OpenTelemetry's exporter itself.
    """

    endpoint: str
    interval_s: float = DEFAULT_INTERVAL_S
    place: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def otlp_settings(environ: Mapping[str, str]) -> OtlpSettings | None:
    """What `environ` says; None where nothing is to be pushed. Wrong values are doubts, no errors."""

    def stated(name: str) -> str:
        """A variable of metrics alone goes before the one of all signals."""
        return environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}") or environ.get(
            f"OTEL_EXPORTER_OTLP_{name}", ""
        )

    endpoint = stated("ENDPOINT")
    exporters = environ.get("OTEL_METRICS_EXPORTER", "otlp").split(",")
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not endpoint or disabled or "otlp" not in (name.strip() for name in exporters):
        return None
    doubts = []
    protocol = stated("PROTOCOL") or "grpc"
    if protocol != "grpc":
        doubts.append(f"OTLP over {protocol} is not spoken; {endpoint} is asked over gRPC")
    interval_s = DEFAULT_INTERVAL_S
    if text := environ.get("OTEL_METRIC_EXPORT_INTERVAL", ""):
        stated_s = _seconds(text)
        if stated_s is None:
            doubts.append(f"OTEL_METRIC_EXPORT_INTERVAL is {text!r}; give milliseconds, as in 60000")
        else:
            interval_s = stated_s
    return OtlpSettings(endpoint, interval_s, place_of(environ), tuple(doubts))


def place_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Attributes of the resource that say where this is: pod and namespace, where they are known."""
    return {
        attribute: environ[name] for name, both in _PLACES.items() if environ.get(name) for attribute in both
    }


def _seconds(milliseconds: str) -> float | None:
    try:
        value = float(milliseconds)
    except ValueError:
        return None
    return value / 1e3 if value > 0 and math.isfinite(value) else None
