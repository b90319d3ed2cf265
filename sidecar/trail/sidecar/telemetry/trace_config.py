"""What is traced and where it goes: options over TRAIL_* and the standard OTEL_* variables."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from trail.sidecar.telemetry.otlp_settings import place_of
from trail.wire.names import (
    ENV_OTLP_ENDPOINT,
    ENV_TRACE_KEEP_PREEMPTED,
    ENV_TRACE_KEEP_WAITED,
    ENV_TRACE_RATIO,
)

_OTEL_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTEL_SAMPLER, _OTEL_RATIO = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
_OTEL_DISABLED = "OTEL_SDK_DISABLED"


@dataclass(frozen=True)
class TraceConfig:
    """Traces go to `endpoint`, an OTLP receiver that speaks gRPC (`http://host:4317`).

    A request whose client sends a `traceparent` is traced if that says so, another one with probability
    `ratio`. `keep_preempted` and `keep_waited_s` (seconds in the queue; infinite: off) trace requests in
    addition. `place` are attributes of the resource that say where this is; credentials, headers and timeouts
    are the standard OTEL_* variables'. Raises ValueError for values out of range.
    """

    endpoint: str
    ratio: float = 1.0
    keep_preempted: bool = False
    keep_waited_s: float = math.inf
    place: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio <= 1.0:
            raise ValueError(f"trace-ratio is {self.ratio}; give a share from 0 to 1")
        if not self.keep_waited_s > 0:
            raise ValueError(
                f"trace-keep-waited-s is {self.keep_waited_s}; give a positive number of seconds"
            )


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Options of `trail sidecar` about traces, with defaults from `environ`."""
    add = parser.add_argument_group("traces").add_argument
    endpoint = next(
        (environ[name] for name in (ENV_OTLP_ENDPOINT, *_OTEL_ENDPOINTS) if environ.get(name)), ""
    )
    if environ.get(_OTEL_DISABLED, "").lower() == "true":
        endpoint = ""
    add("--otlp-endpoint", default=endpoint, metavar="URL",
        help="a span a request goes to this OTLP receiver, as in http://localhost:4317"
        f" (${ENV_OTLP_ENDPOINT}, ${_OTEL_ENDPOINTS[0]}, ${_OTEL_ENDPOINTS[1]}; %(default)s)")  # fmt: skip
    add("--trace-ratio", type=float, metavar="R",
        default=environ.get(ENV_TRACE_RATIO) or _standard_ratio(environ),
        help="share of requests to trace where no traceparent says it (%(default)s)")  # fmt: skip
    add("--trace-keep-preempted", action="store_true",
        default=environ.get(ENV_TRACE_KEEP_PREEMPTED) == "1",
        help="trace preempted requests whatever the sampling")  # fmt: skip
    add("--trace-keep-waited-s", type=float, metavar="S",
        default=environ.get(ENV_TRACE_KEEP_WAITED) or "inf",
        help="trace requests that waited this long whatever the sampling (%(default)s)")  # fmt: skip
    parser.set_defaults(trace_place=place_of(environ))


def from_arguments(args: argparse.Namespace) -> TraceConfig | None:
    """The configuration that the parsed arguments state, None where nothing is traced. Raises ValueError."""
    config = TraceConfig(
        args.otlp_endpoint,
        args.trace_ratio,
        args.trace_keep_preempted,
        args.trace_keep_waited_s,
        args.trace_place,
    )
    return config if config.endpoint else None


def _standard_ratio(environ: Mapping[str, str]) -> str:
    """The ratio that OpenTelemetry's own variables ask for. What they say wrongly keeps no sidecar down."""
    sampler = environ.get(_OTEL_SAMPLER, "").strip().lower()
    if sampler.endswith("traceidratio"):
        try:
            ratio = float(environ.get(_OTEL_RATIO, ""))
        except ValueError:
            return "1"
        return str(ratio) if 0.0 <= ratio <= 1.0 else "1"
    return "0" if sampler.endswith("always_off") else "1"
