"""What the operator's tests share: policies, views, pods, reviews, and the golden cases."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from trail_operator.admission.review import View, answer
from trail_operator.reconcile.cluster import to_entry
from trail_operator.settings import InjectionSettings

Object = dict[str, Any]

GOLDEN = Path(__file__).parent / "golden"
CRD = Path(__file__).parents[2] / "charts/trail-crds/files/trailpolicies.yaml"
SETTINGS = InjectionSettings(
    sidecar_image="registry.example/trail-sidecar:0.1.0",
    engine_image="registry.example/trail-engine:0.1.0",
    redis_url="redis://trail-redis.trail-system:6379/0",
)
DEFAULT = ("trail-system", "cluster")


def load_documents(path: Path) -> list[Object]:
    """The documents of a YAML file."""
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


def crd_version() -> Object:
    """The one version of the CRD."""
    (crd,) = load_documents(CRD)
    (version,) = crd["spec"]["versions"]
    return dict(version)


def make_policy(name: str = "default", namespace: str = "llm", **spec: Any) -> Object:
    """A TrailPolicy object with a predictor."""
    return {
        "apiVersion": "trail.dev/v1alpha1",
        "kind": "TrailPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 1,
                     "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "1"},
        "spec": {"predictor": {"layer": 11, "image": {"reference": "registry.example/p:1"}}, **spec},
    }  # fmt: skip


def make_view(policies: list[Object], *, native: bool = True, **more: Any) -> View:
    """What a webhook knows that has seen `policies`."""
    entries = {(e.namespace, e.name): e for e in map(to_entry, policies)}
    return View(entries, more.pop("settings", SETTINGS), more.pop("default", DEFAULT), native=native, **more)


def make_pod(
    container: Object | None = None, annotations: dict[str, str] | None = None, **spec: Any
) -> Object:
    """A pod with vLLM that asks for TRAIL."""
    vllm = {"name": "vllm", "image": "vllm/vllm-openai:v0.32.0", **(container or {})}
    asks = {"trail.dev/inject": "enabled"} if annotations is None else annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "annotations": asks},
        "spec": {"containers": [vllm], **spec},
    }


def make_review(pod: Any, namespace: str = "llm", version: str = "v1", **request: Any) -> bytes:
    """An AdmissionReview as an API server sends it."""
    body = {
        "apiVersion": f"admission.k8s.io/{version}",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393",
            "operation": "CREATE",
            "namespace": namespace,
            "object": pod,
            **request,
        },
    }
    return json.dumps(body).encode()


def admit(pod: Object, view: View, namespace: str | None = None, version: str = "v1") -> Object:
    """The pod as the API server has it after the webhook's answer."""
    namespace = namespace or pod["metadata"].get("namespace", "llm")
    response = json.loads(answer(make_review(pod, namespace, version), view).body)["response"]
    patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    patched: Object = jsonpatch.apply_patch(pod, patch)
    return patched


@cache
def golden_view(*, native: bool) -> View:
    """The view that the golden files are made with."""
    return make_view(load_documents(GOLDEN / "policies.yaml"), native=native)


def golden_cases() -> list[str]:
    """Names of all golden cases."""
    return sorted(path.name.removesuffix(".pod.yaml") for path in GOLDEN.glob("*.pod.yaml"))
