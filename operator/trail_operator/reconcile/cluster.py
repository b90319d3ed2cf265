"""What the operator knows of the cluster, from the watches: no more than it decides by.

Templates are cached as bytes: thousands of workloads as Python objects would take many times the memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trail_operator import names
from trail_operator.admission.inject import read_status
from trail_operator.admission.pods import annotations, labels, owner
from trail_operator.admission.review import View, Withdrawals
from trail_operator.admission.stamp import Stamp
from trail_operator.policy.fields import PolicyError
from trail_operator.policy.resolve import Entry
from trail_operator.policy.resource import parse_policy, parse_selector
from trail_operator.reconcile.blocked import Blocked, blocked
from trail_operator.settings import InjectionSettings

Object = Mapping[str, Any]
PolicyKey = tuple[str, str]

DELETED = "DELETED"


@dataclass(frozen=True)
class PolicyRecord:
    """A TrailPolicy with the status it was last seen with."""

    entry: Entry
    uid: str
    version: str
    generation: int
    status: Object


@dataclass(frozen=True)
class WorkloadRecord:
    """A Deployment or StatefulSet."""

    namespace: str
    kind: str
    """As in its object: `Deployment`."""
    name: str
    uid: str
    version: str
    annotation: str | None
    """Its own `trail.dev/inject`."""
    stamp: Stamp
    owner: str
    """`Kind name` of the controller that owns it, or ''."""
    template: bytes

    @property
    def key(self) -> str:
        """`namespace/kind/name`, the kind in lower case."""
        return f"{self.namespace}/{self.kind.lower()}/{self.name}"


@dataclass(frozen=True)
class PodRecord:
    """An injected pod."""

    namespace: str
    name: str
    uid: str
    workload: str
    policy: str
    policy_hash: str
    injection_hash: str
    controlled: bool
    """Whether a controller makes another one in its place."""
    running: bool
    sidecar_up: bool
    blocked: Blocked | None


class Cluster:
    """The present state. `observe_*` take a watch event's type and object, and say what changed."""

    def __init__(self, settings: InjectionSettings, default: PolicyKey | None) -> None:
        self.policies: dict[PolicyKey, PolicyRecord] = {}
        self.namespaces: dict[str, str] = {}
        self.workloads: dict[str, WorkloadRecord] = {}
        self.pods: dict[tuple[str, str], PodRecord] = {}
        self.settings = settings
        self.default = default
        self._view = View({}, settings, default)

    @property
    def view(self) -> View:
        """What an admission is decided by."""
        return self._view

    def set_native(self, native: bool) -> bool:
        """Whether the cluster has native sidecars; returns whether that is news."""
        changed = self._view.native != native
        self._view = replace(self._view, native=native)
        return changed

    def observe_policy(self, kind: str | None, obj: Object) -> PolicyKey:
        """A TrailPolicy."""
        metadata = obj["metadata"]
        key = (metadata["namespace"], metadata["name"])
        uid, version = str(metadata.get("uid", "")), str(metadata.get("resourceVersion", ""))
        known = self.policies.get(key)
        if kind == DELETED:
            self.policies.pop(key, None)
        elif known is None or not _older(uid, version, known.uid, known.version):
            status = obj.get("status")
            self.policies[key] = PolicyRecord(
                to_entry(obj),
                uid,
                version,
                int(metadata.get("generation") or 0),
                status if isinstance(status, Mapping) else {},
            )
        self._view = replace(
            self._view,
            policies={k: record.entry for k, record in self.policies.items()},
            withdrawals=_withdrawals(self.policies.values()),
        )
        return key

    def observe_namespace(self, kind: str | None, obj: Object) -> str | None:
        """A namespace; None where nothing of ours changed."""
        name = obj["metadata"]["name"]
        label = None if kind == DELETED else labels(obj).get(names.INJECT)
        if self.namespaces.get(name) == label:
            return None
        self.namespaces.pop(name, None)
        if label is not None:
            self.namespaces[name] = label
        self._view = replace(self._view, namespace_labels=dict(self.namespaces))
        return str(name)

    def observe_workload(self, kind: str | None, obj: Object, object_kind: str) -> str:
        """A Deployment or StatefulSet."""
        record = to_workload(obj, object_kind)
        known = self.workloads.get(record.key)
        if kind == DELETED:
            self.workloads.pop(record.key, None)
        elif known is None or not _older(record.uid, record.version, known.uid, known.version):
            self.workloads[record.key] = record
        return record.key

    def observe_pod(self, kind: str | None, obj: Object) -> tuple[PodRecord | None, PodRecord | None]:
        """An injected pod: as it was known before and as it is now."""
        metadata = obj["metadata"]
        key = (metadata["namespace"], metadata["name"])
        before = self.pods.pop(key, None)
        record = to_pod(obj)
        if kind == DELETED or record is None:
            return before, None
        self.pods[key] = record
        return before, record


def _older(uid: str, version: str, known_uid: str, known: str) -> bool:
    """Whether an event tells of an object as it was before our own write, whose answer came first."""
    comparable = uid == known_uid and version.isdigit() and known.isdigit()
    return comparable and int(version) < int(known)


def to_entry(obj: Object) -> Entry:
    """A TrailPolicy object as it is looked up; what is wrong with it is kept as a sentence."""
    metadata = obj["metadata"]
    selector, policy, error = None, None, ""
    try:
        selector = parse_selector(obj)
        policy = parse_policy(obj)
    except PolicyError as problem:
        error = str(problem)
    created = str(metadata.get("creationTimestamp") or "")
    return Entry(metadata["namespace"], metadata["name"], created, selector, policy, error)


def to_workload(obj: Object, object_kind: str) -> WorkloadRecord:
    """A Deployment or StatefulSet object as a record."""
    metadata = obj["metadata"]
    template = (obj.get("spec") or {}).get("template") or {}
    controller = owner(obj)
    cached = {
        "metadata": {"labels": labels(template), "annotations": annotations(template)},
        "spec": template.get("spec") or {},
    }
    return WorkloadRecord(
        namespace=metadata["namespace"],
        kind=object_kind,
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        version=str(metadata.get("resourceVersion", "")),
        annotation=annotations(obj).get(names.INJECT),
        stamp=Stamp.of(annotations(template)),
        owner="" if controller is None else f"{controller.get('kind')} {controller.get('name')}",
        template=json.dumps(cached, separators=(",", ":")).encode(),
    )


def to_pod(obj: Object) -> PodRecord | None:
    """A pod object as a record; None for one that was not injected, or that ends."""
    status = read_status(obj)
    metadata = obj["metadata"]
    phase = (obj.get("status") or {}).get("phase")
    if status is None or status.get("injected") is not True or phase in ("Succeeded", "Failed"):
        return None
    if metadata.get("deletionTimestamp"):
        return None
    return PodRecord(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        workload=str(status.get("workload", "")),
        policy=str(status.get("policy", "")),
        policy_hash=str(status.get("policyHash", "")),
        injection_hash=str(status.get("hash", "")),
        controlled=owner(obj) is not None,
        running=phase == "Running",
        sidecar_up=_sidecar_up(obj),
        blocked=blocked(obj),
    )


def _sidecar_up(pod: Object) -> bool:
    status = pod.get("status") or {}
    every = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    return any(s.get("name") == names.SIDECAR and "running" in (s.get("state") or {}) for s in every)


def _withdrawals(records: Any) -> Withdrawals:
    return frozenset(
        (str(item.get("workload")), str(item.get("hash")))
        for record in records
        for item in record.status.get("withdrawn") or ()
        if isinstance(item, Mapping)
    )
