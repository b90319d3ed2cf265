"""Where traces go and which: options over TRAIL_* over OpenTelemetry's own variables."""

import argparse
import math

import pytest

from trail.sidecar.telemetry.trace_config import TraceConfig, add_arguments, from_arguments

OTEL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317"}


def parse(environ: dict[str, str], *words: str) -> TraceConfig | None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, environ)
    return from_arguments(parser.parse_args(words))


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert parse({}) is None
    assert parse({**OTEL, "OTEL_SDK_DISABLED": "true"}) is None


def test_options_go_before_our_variables_and_these_before_the_standard_ones() -> None:
    environ = dict(OTEL)
    assert parse(environ) == TraceConfig("http://all:4317")
    environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = "http://traces:4317"
    assert parse(environ) == TraceConfig("http://traces:4317")
    environ |= {"TRAIL_OTLP_ENDPOINT": "http://ours:4317", "TRAIL_TRACE_RATIO": "0.5"}
    environ |= {"TRAIL_TRACE_KEEP_PREEMPTED": "1", "TRAIL_TRACE_KEEP_WAITED_S": "3"}
    assert parse(environ) == TraceConfig("http://ours:4317", 0.5, True, 3.0)
    config = parse(environ, "--otlp-endpoint", "h:1", "--trace-ratio", "0.25", "--trace-keep-waited-s", "inf")
    assert config == TraceConfig("h:1", 0.25, True, math.inf)


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        ("", "0.3", 1.0),
        ("parentbased_traceidratio", "0.3", 0.3),
        ("traceidratio", "0.3", 0.3),
        ("traceidratio", "often", 1.0),
        ("traceidratio", "7", 1.0),
        ("traceidratio", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("always_on", "", 1.0),
        ("jaeger_remote", "endpoint=x", 1.0),
    ],
)
def test_the_standard_sampler_is_heeded_and_keeps_no_sidecar_down(
    sampler: str, argument: str, ratio: float
) -> None:
    config = parse({**OTEL, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert config is not None
    assert config.ratio == ratio


def test_the_pod_is_named_in_the_resource() -> None:
    config = parse({**OTEL, "TRAIL_POD_NAME": "vllm-0"})
    assert config is not None
    assert config.place["k8s.pod.name"] == "vllm-0"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--trace-ratio", "1.5", "trace-ratio is 1.5"), ("--trace-keep-waited-s", "0", "positive number")],
)
def test_values_out_of_range_are_refused(option: str, value: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(OTEL, option, value)
