"""What the tests of cluster commands share: where objects are, and how they are made."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeApi
from operator_kit import make_policy

from trail_operator.admission.confighash import policy_hash
from trail_operator.admission.review import decide
from trail_operator.policy.resource import parse_policy
from trail_operator.reconcile.cluster import Cluster
from trail_operator.settings import InjectionSettings

Object = dict[str, Any]
Trail = Callable[..., int]

DEPLOYMENTS = "/apis/apps/v1/namespaces/llm/deployments"
POLICIES = "/apis/trail.dev/v1alpha1/namespaces/llm/trailpolicies"
PODS = "/api/v1/namespaces/llm/pods"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
SECRETS = "/api/v1/namespaces/trail-system/secrets"
OPERATOR = "/apis/apps/v1/namespaces/trail-system/deployments/trail-operator"
LABELS = {"app.kubernetes.io/name": "trail", "app.kubernetes.io/component": "operator"}


def make_deployment(
    name: str = "llama", image: str = "vllm/vllm-openai:v0.32.0", **annotations: str
) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "llm", "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    }


def make_pod(deployment: Object) -> Object:
    name = deployment["metadata"]["name"]
    template = deployment["spec"]["template"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{name}-5f",
        "uid": "u",
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-5f-x",
            "namespace": "llm",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {**template["metadata"]["labels"], "pod-template-hash": "5f"},
            "annotations": dict(template["metadata"].get("annotations") or {}),
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def inject_pod(pod: Object, policy: Object, annotation: str = "enabled") -> Object:
    """The pod as the operator's own webhook would have it."""
    cluster = Cluster(InjectionSettings("s:1", "e:1"), None)
    cluster.observe_policy(None, policy)
    notes = {**pod["metadata"]["annotations"], "trail.dev/workload-inject": annotation}
    asking = {**pod, "metadata": {**pod["metadata"], "annotations": notes}}
    return decide(asking, "llm", cluster.view)[1]


def stamps(policy: Object | None = None, annotation: str = "enabled") -> dict[str, str]:
    """The annotations that the operator puts into a pod template."""
    digest = policy_hash(parse_policy(policy or make_policy()))
    return {"trail.dev/workload-inject": annotation, "trail.dev/config-hash": digest}


def rolled(
    obj: Object, notes: Mapping[str, str] | None = None, *, replicas: int = 2, updated: int | None = None,
    available: int | None = None, every: int | None = None, conditions: list[Object] | None = None,
) -> Object:  # fmt: skip
    """A Deployment with annotations in its template, as far rolled out as numbers say: all of it."""
    updated = replicas if updated is None else updated
    status = {
        "observedGeneration": 2,
        "replicas": replicas if every is None else every,
        "updatedReplicas": updated,
        "availableReplicas": updated if available is None else available,
        "conditions": conditions or [],
    }
    spec = obj["spec"]
    template = spec["template"]
    template = {**template, "metadata": {**template["metadata"], "annotations": dict(notes or {})}}
    return {
        **obj,
        "metadata": {**obj["metadata"], "generation": 2},
        "spec": {**spec, "replicas": replicas, "template": template},
        "status": status,
    }


def pods_of(deployment: Object, policy: Object | None = None, number: int = 2) -> list[Object]:
    """Its pods, injected by a policy; bare for None."""
    out = []
    for place in range(number):
        pod = make_pod(deployment)
        pod["metadata"]["name"] += f"-{place}"
        if policy is not None:
            pod = inject_pod(pod, policy)
        ready = [{"type": "Ready", "status": "True"}]
        out.append({**pod, "status": {"phase": "Running", "conditions": ready}})
    return out


class StepClock:
    """Time that passes by itself: each sleep takes one step of what happens in a cluster meanwhile."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self._now_s = 1000.0

    def now_s(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        self._now_s += seconds
        if self.steps:
            self.steps.pop(0)()


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
