"""What the tests of cluster commands share: where objects are, and how they are made."""

from collections.abc import Callable
from typing import Any

from trail_operator.cluster import Cluster
from trail_operator.review import decide
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


def make_policy(name: str = "default", **spec: Any) -> Object:
    predictor = {"layer": 11, "image": {"reference": "registry.example/p:1"}}
    return {
        "apiVersion": "trail.dev/v1alpha1",
        "kind": "TrailPolicy",
        "metadata": {"name": name, "namespace": "llm", "uid": name, "generation": 1},
        "spec": {"predictor": predictor, **spec},
    }


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


def inject_pod(pod: Object, policy: Object, wish: str = "enabled") -> Object:
    """The pod as the operator's own webhook would have it."""
    cluster = Cluster(InjectionSettings("s:1", "e:1"), None)
    cluster.observe_policy(None, policy)
    notes = {**pod["metadata"]["annotations"], "trail.dev/workload-inject": wish}
    asking = {**pod, "metadata": {**pod["metadata"], "annotations": notes}}
    return decide(asking, "llm", cluster.view)[1]
