"""Whole lists beside the watches: everything before the first decision, and what a watch lost later on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from trail_operator import names
from trail_operator.cluster_api.kube import Kube, path
from trail_operator.cluster_api.version import native_sidecars, parse_version
from trail_operator.reconcile.cluster import DELETED, Cluster
from trail_operator.reconcile.controller import APPS, PLURALS, Controller

Object = dict[str, Any]
Name = tuple[str, str]
"""Namespace, or '', and name."""


@dataclass(frozen=True)
class _Kind:
    where: str
    known: Callable[[], Iterable[Name]]
    event: Callable[[str | None, Object], None]
    label: str = ""


async def load(cluster: Cluster, controller: Controller, kube: Kube) -> None:
    """Has `controller` hear of all objects that it does not know, and of those that are gone.

    Changes of known ones are left to the watches, which may be ahead of a list. Raises as `Kube` does.
    """
    for kind in _kinds(cluster, controller):
        before = set(kind.known())
        listed = {_name(obj): obj for obj in await kube.all(kind.where, kind.label)}
        present = set(kind.known())
        for place, obj in listed.items():
            if place not in present:
                kind.event(None, obj)
        # Not what a watch has brought since: the list may be older than that.
        for namespace, name in before & present - set(listed):
            metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
            kind.event(DELETED, {"metadata": metadata})


async def look_at_version(kube: Kube) -> bool:
    """Whether pods get a native sidecar. Raises as `Kube` does, except where nodes may not be listed."""
    server = await kube.get("/version")
    version = parse_version(f"{server.get('major', '')}.{str(server.get('minor', '')).rstrip('+')}")
    if not native_sidecars(version, ()):
        return False
    try:
        nodes = await kube.all(path("v1", "nodes"))
    except Exception:  # noqa: BLE001 - a permission that may well be missing
        return native_sidecars(version, None)
    kubelets = [str(((n.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")) for n in nodes]
    return native_sidecars(version, kubelets)


def _kinds(cluster: Cluster, controller: Controller) -> list[_Kind]:
    def workloads(kind: str) -> _Kind:
        return _Kind(
            path(APPS, PLURALS[kind]),
            lambda: [(w.namespace, w.name) for w in cluster.workloads.values() if w.kind == kind],
            lambda event, obj: controller.workload_event(event, obj, kind),
        )

    return [
        _Kind(path(names.API_VERSION, names.PLURAL), lambda: cluster.policies, controller.policy_event),
        _Kind(path("v1", "namespaces"), lambda: [("", name) for name in cluster.namespaces],
              controller.namespace_event),
        *map(workloads, PLURALS),
        _Kind(path("v1", "pods"), lambda: cluster.pods, controller.pod_event, f"{names.INJECTED_LABEL}=true"),
    ]  # fmt: skip


def _name(obj: Object) -> Name:
    metadata = obj["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])
