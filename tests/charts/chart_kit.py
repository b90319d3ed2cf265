"""Charts as real Helm renders them, and what Kubernetes says of the result."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import yaml

Object = dict[str, Any]
Ask = Callable[[str], list[tuple[dict[str, str], float]]]
"""A query, and of each series of its answer labels and value."""

CHARTS = Path(__file__).parents[2] / "charts"
TRAIL, CRDS = CHARTS / "trail", CHARTS / "trail-crds"
NAMESPACE = "trail-system"
NEW, OLD = "1.37.0", "1.20.0"
OLDEST_SCHEMA = "1.25"
"""kubernetes-validate ships none that is older; what 1.25 has dropped is named in BEFORE."""
BEFORE = {("policy/v1beta1", "PodDisruptionBudget")}
FOREIGN = {"monitoring.coreos.com/v1", "cert-manager.io/v1", "trail.dev/v1alpha1"}
"""Groups of others: their schemas come with their own charts."""

OFF = {
    "webhook": {"enabled": False},
    "redis": {"mode": "off"},
    "networkPolicy": {"enabled": False},
    "operator": {"podDisruptionBudget": {"enabled": False}},
    "serviceAccount": {"create": False},
    "rbac": {"create": False},
    "uninstall": {"clean": False},
    "tests": {"enabled": False},
}
CASES: dict[str, Object] = {
    "default": {},
    "ha": {"operator": {"replicas": 3}},
    "external-redis": {
        "redis": {
            "mode": "external",
            "external": {"secretName": "redis-operator", "sidecarSecretName": "redis-sidecar"},
        }
    },
    "external-redis-url": {
        "redis": {"mode": "external", "external": {"url": "rediss://redis.example:6380/0"}},
        "networkPolicy": {"redisPort": 6380},
    },
    "cert-manager": {"certificates": {"mode": "certManager"}},
    "cert-manager-issuer": {
        "certificates": {
            "mode": "certManager",
            "certManager": {"issuerRef": {"kind": "ClusterIssuer", "name": "internal"}},
        }
    },
    "own-certificate": {
        "certificates": {"mode": "secret", "secretName": "mine", "caBundle": "Y2VydGlmaWNhdGU="}
    },
    "off": OFF,
    "on": {
        "operator": {"replicas": 2, "otlpEndpoint": "http://collector.observe:4318",
                     "podLabels": {"a": "b"}, "podAnnotations": {"a": "b"},
                     "nodeSelector": {"a": "b"}, "priorityClassName": "high",
                     "tolerations": [{"key": "a", "operator": "Exists"}],
                     "extraEnv": [{"name": "A", "value": "b"}]},
        "imagePullSecrets": [{"name": "regcred"}],
        "commonLabels": {"team": "llm"},
        "images": {"operator": {"digest": "sha256:" + "0" * 64}},
        "clusterPolicy": {"spec": {"policy": {"name": "fcfs"}}},
        "webhook": {"hostNetwork": True, "objectSelector": {"matchLabels": {"a": "b"}},
                    "namespaceExpressions": [{"key": "trail.dev/inject", "operator": "Exists"}],
                    "matchConditions": [{"name": "mine", "expression": "true"}]},
        "metrics": {part: {"enabled": True} for part in
                    ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")},
    },
    "by-url": {"webhook": {"url": "https://127.0.0.1:9443/inject"}},
}  # fmt: skip


@cache
def _chart(path: Path) -> helm_python.Chart:
    return helm_python.Chart.load(path)


def render(values: Object | None = None, *, version: str = NEW, chart: Path = TRAIL) -> list[Object]:
    """The objects of a chart, by template's name and place."""
    more = {"kubeVersion": version} if chart is TRAIL else {}
    texts = _chart(chart).render({**(values or {}), **more}, name="trail", namespace=NAMESPACE)
    found = [yaml.safe_load_all(text) for name, text in sorted(texts.items()) if not name.endswith(".txt")]
    return [obj for documents in found for obj in documents if obj]


def check(values: Object) -> None:
    """Raises HelmError where schema or templates refuse values."""
    with helm_python.Chart.load(TRAIL) as chart:
        chart.validate_schema(chart.merge_values(values))
        chart.render(values, name="trail", namespace=NAMESPACE)


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind, with a name that ends like that."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(name)]
    assert len(found) == 1, (kind, name, [o["metadata"]["name"] for o in objects if o["kind"] == kind])
    return found[0]


def pod_specs(objects: list[Object]) -> list[Object]:
    """The specs of all pods that objects make."""
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] in ("Deployment", "Job")]
    return specs + [o["spec"] for o in objects if o["kind"] == "Pod"]


def validate(obj: Object, version: str) -> None:
    """Raises where the Kubernetes schema of `version` (`1.37`) has something against an object."""
    kubernetes_validate.validate(obj, version, strict=True)
