"""A fake API server with an operator, a policy, two Deployments and their pods in it."""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_kit import (
    DEPLOYMENTS,
    HOOKS,
    LABELS,
    OPERATOR,
    POLICIES,
    StepClock,
    Trail,
    make_deployment,
)
from fake_api import FakeApi
from operator_kit import make_policy


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """In `KUBECONFIG`, namespace llm: TrailPolicy default, Deployments llama (vLLM) and web (none)."""
    api = FakeApi()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "llm"}}
    api.put("/api/v1/namespaces/llm", namespace)
    api.put(f"{POLICIES}/default", make_policy())
    api.put(f"{DEPLOYMENTS}/llama", make_deployment())
    api.put(f"{DEPLOYMENTS}/web", make_deployment("web", "nginx:1"))
    operator = {
        "metadata": {"name": "trail-operator", "namespace": "trail-system", "labels": LABELS},
        "spec": {"replicas": 2, "selector": {"matchLabels": LABELS},
                 "template": {"spec": {"containers": [{"name": "operator", "env": []}]}}},
        "status": {"readyReplicas": 2},
    }  # fmt: skip
    api.put(OPERATOR, operator)
    hook = {
        "name": "inject.trail.dev",
        "clientConfig": {
            "service": {"name": "trail-operator", "namespace": "trail-system"},
            "caBundle": "Y2E=",
        },
    }
    api.put(f"{HOOKS}/trail", {"metadata": {"name": "trail"}, "webhooks": [hook]})
    with api.serving(tmp_path) as kubeconfig:
        # The library looks at the variable when it is imported.
        monkeypatch.setattr(
            "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig)
        )
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield api


@pytest.fixture
def trail() -> Trail:
    """`trail NAME ...` as the command line has it; the exit code."""

    def call(name: str, *words: str) -> int:
        module = importlib.import_module(f"trail.commands.cluster.{name.replace('-', '_')}")
        parser = argparse.ArgumentParser(prog=f"trail {name}", allow_abbrev=False)
        module.configure(parser)
        return int(module.run(parser.parse_args(words)))

    return call


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StepClock:
    """What waits takes its time from here."""
    clock = StepClock()
    monkeypatch.setattr("trail.commands.cluster.wait.CLOCK", clock)
    return clock
