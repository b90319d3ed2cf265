"""What the webhook tells sidecar and vLLM is what their own parsers take it for."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from operator_kit import SETTINGS, admit, crd_version, make_pod, make_policy, make_view

from trail.engine.start.config import EngineConfig
from trail.sidecar.config import SidecarConfig, add_arguments, from_arguments
from trail.sidecar.redis.config import RedisConfig
from trail.sidecar.telemetry.otlp_settings import OtlpSettings
from trail.sidecar.telemetry.trace_config import TraceConfig
from trail_operator import names
from trail_operator.policy.resource import parse_policy

ALL = {
    "workloads": {"selector": {}},
    "predictor": {"layer": 7, "persistentVolumeClaim": {"claimName": "p", "path": "llama/v2"}},
    "everySteps": 3,
    "policy": {"name": "adaptive", "kappa": 2.5, "preemptRatio": 3, "maxPreemptions": 2,
               "kvReserveTokens": 24.5, "size": "gittins", "shadow": True},
    "quality": "Watch",
    "c": {"mode": "Fixed", "value": 0.3, "min": 0.1, "max": 0.9},
    "sidecar": {"image": "s:1", "threads": 2, "metricsPort": 9999, "sharedMemory": "1Gi",
                "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}},
    "engine": {"image": "e:1"},
    "telemetry": {"otlpEndpoint": "http://collector:4317", "sampleRatio": 0.25, "decisionLogMiB": 16},
}  # fmt: skip
"""A policy that sets everything."""
PREDICTORS = {
    "image": ({"reference": "p:1", "path": "/elsewhere"}, names.PREDICTOR_PATH),
    "persistentVolumeClaim": ({"claimName": "p"}, names.PREDICTOR_DIR),
    "configMap": ({"name": "p"}, names.PREDICTOR_DIR),
    "url": ({"location": "https://h/p.tar", "sha256": "0" * 64}, names.PREDICTOR_PATH),
}
FIELDS = {
    "metadata.name": "llama-0",
    "metadata.namespace": "llm",
    "metadata.uid": "u-1",
    "status.podIP": "fd00::7",
}
"""What the kubelet puts in place of a `fieldRef`."""


def environment(container: dict[str, Any]) -> dict[str, str]:
    """A container's variables as its process finds them."""
    return {
        entry["name"]: FIELDS[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        if "valueFrom" in entry
        else entry["value"]
        for entry in container["env"]
    }


def parsed(policy: dict[str, Any], *args: str) -> tuple[SidecarConfig, EngineConfig]:
    """What sidecar and engine make of a pod whose vLLM has `args`, after the webhook."""
    spec = admit(make_pod({"args": list(args)}), make_view([policy]))["spec"]
    (sidecar,) = (c for c in spec["initContainers"] if c["name"] == names.SIDECAR)
    # The command line of the container says nothing more.
    assert sidecar["command"][-3:] == ["--", "trail", "sidecar"]
    parser = argparse.ArgumentParser()
    add_arguments(parser, environment(sidecar))
    return from_arguments(parser.parse_args([])), EngineConfig.from_environ(
        environment(spec["containers"][0])
    )


def unset(properties: dict[str, Any], given: dict[str, Any]) -> set[str]:
    """Properties of the CRD that `given` leaves out, the selector's aside."""
    left = properties.keys() - given.keys()
    inner = {name: properties[name]["properties"] for name in properties.keys() - left - {"selector"}
             if "properties" in properties[name]}  # fmt: skip
    return left.union(*(unset(more, given[name]) for name, more in inner.items()))


def test_the_policy_that_sets_everything_does() -> None:
    spec = crd_version()["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    # A predictor has one source.
    assert unset(spec, ALL) == PREDICTORS.keys() - {"persistentVolumeClaim"}


def test_all_that_a_policy_sets_arrives() -> None:
    policy = make_policy(**ALL)
    sidecar, engine = parsed(policy, "--data-parallel-size", "4")
    place = {"service.instance.id": "llama-0", "k8s.pod.name": "llama-0",
             "service.namespace": "llm", "k8s.namespace.name": "llm"}  # fmt: skip
    assert sidecar == SidecarConfig(
        directory=Path(names.RUN_DIR),
        predictor=Path(names.PREDICTOR_DIR) / "llama/v2",
        policy=parse_policy(policy).scheduling,
        engines=4,
        threads=2,
        quality="watch",
        metrics_host="fd00::7",
        metrics_port=9999,
        decision_log=Path(names.DECISION_LOG),
        decision_log_mib=16,
        redis=RedisConfig(SETTINGS.redis_url, "llm/pod/llama-0", "llama-0"),
        traces=TraceConfig("http://collector:4317", 0.25, place=place),
        pod="llama-0",
        otlp=OtlpSettings("http://collector:4317", place=place),
    )
    assert engine == EngineConfig(
        enabled=True,
        directory=Path(names.RUN_DIR),
        layers=(7,),
        export_every=3,
        otlp_endpoint="http://collector:4317",
        trace_ratio="0.25",
    )


@pytest.mark.parametrize("kind", PREDICTORS)
def test_what_a_policy_leaves_out_is_the_default_of_both(kind: str) -> None:
    source, path = PREDICTORS[kind]
    policy = make_policy(predictor={"layer": 11, kind: source})
    sidecar, engine = parsed(policy)
    assert sidecar == SidecarConfig(
        directory=Path(names.RUN_DIR),
        predictor=Path(path),
        policy=parse_policy(policy).scheduling,
        metrics_host="fd00::7",
        redis=RedisConfig(SETTINGS.redis_url, "llm/pod/llama-0", "llama-0"),
        pod="llama-0",
    )
    assert engine == EngineConfig(enabled=True, directory=Path(names.RUN_DIR), layers=(11,))


def test_without_a_predictor_nothing_is_exported() -> None:
    policy = make_policy(predictor=None, policy={"name": "fcfs"})
    sidecar, engine = parsed(policy)
    assert (sidecar.predictor, sidecar.policy) == (None, parse_policy(policy).scheduling)
    assert engine == EngineConfig(enabled=True, directory=Path(names.RUN_DIR))
