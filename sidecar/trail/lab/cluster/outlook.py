"""What the operator would decide about a workload or a pod now, by its own code."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trail.lab.cluster.session import Object, Session, allowed, policies
from trail_operator import names
from trail_operator.cluster import Cluster, WorkloadRecord, to_workload
from trail_operator.judge import asked_of, judge, template_of
from trail_operator.kube import path
from trail_operator.policy import TrailPolicy
from trail_operator.reasons import Skip
from trail_operator.review import Outcome, decide
from trail_operator.settings import InjectionSettings

OPERATOR_LABELS = "app.kubernetes.io/name=trail,app.kubernetes.io/component=operator"
_DEFAULT_POLICY = "TRAIL_OPERATOR_DEFAULT_POLICY"


@dataclass(frozen=True)
class Operator:
    """What can be seen of the operator's installation; empty where one may not look."""

    namespace: str = ""
    name: str = ""
    ready: int = 0
    wanted: int = 0
    default_policy: tuple[str, str] | None = None


@dataclass(frozen=True)
class Outlook:
    """What becomes of a workload's pods, with its own annotation and without it."""

    record: WorkloadRecord
    outcome: TrailPolicy | Skip | None
    otherwise: TrailPolicy | Skip | None


async def find_operator(session: Session) -> Operator:
    """The operator's Deployment, wherever it is."""
    where = path("apps/v1", "deployments")
    found = await allowed(session.kube.all(where, OPERATOR_LABELS), [])
    if not found:
        return Operator()
    deployment = found[0]
    containers = deployment["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value", "") for c in containers for e in c.get("env") or ()}
    namespace, _, name = env.get(_DEFAULT_POLICY, "").partition("/")
    return Operator(
        deployment["metadata"]["namespace"],
        deployment["metadata"]["name"],
        int((deployment.get("status") or {}).get("readyReplicas") or 0),
        int(deployment["spec"].get("replicas", 1)),
        (namespace, name) if name else None,
    )


async def look(session: Session, operator: Operator, extra: tuple[str, ...] = ()) -> Cluster:
    """The policies and the namespace that decide in the session's namespace, and those of `extra` ones."""
    # Images and identities decide nothing that is shown here.
    cluster = Cluster(InjectionSettings("", ""), operator.default_policy)
    namespaces = {session.namespace, *extra}
    if operator.default_policy:
        namespaces.add(operator.default_policy[0])
    for namespace in sorted(namespaces):
        found = await policies(session, namespace) if namespace == session.namespace else await allowed(
            session.kube.all(path(names.API_VERSION, names.PLURAL, namespace)), []
        )  # fmt: skip
        for obj in found:
            cluster.observe_policy(None, obj)
    namespace = await allowed(session.kube.get(path("v1", "namespaces", None, session.namespace)), None)
    if namespace is not None:
        cluster.observe_namespace(None, namespace)
    return cluster


def foreign(*wishes: str | None) -> tuple[str, ...]:
    """Namespaces that annotations name policies of."""
    return tuple(wish.split("/")[0].strip() for wish in wishes if wish and "/" in wish)


def of_workload(cluster: Cluster, obj: Object, kind: str) -> Outlook:
    """What becomes of a Deployment's or StatefulSet's pods."""
    record = to_workload(obj, kind)
    template = template_of(record)
    asked = asked_of(cluster, record, template)
    return Outlook(
        record,
        judge(cluster, asked, template),
        judge(cluster, replace(asked, workload=None), template),
    )


def of_pod(cluster: Cluster, pod: Object, namespace: str, workload_wish: str | None) -> Outcome:
    """What the webhook would do with `pod` if it were made anew, its workload's stamp in place."""
    fresh: Object = {key: pod[key] for key in ("apiVersion", "kind", "spec") if key in pod}
    metadata = dict(pod["metadata"])
    notes = dict(metadata.get("annotations") or {})
    if workload_wish is not None:
        notes[names.STAMPED_INJECT] = workload_wish
    fresh["metadata"] = {**metadata, "annotations": notes}
    outcome, _ = decide(fresh, namespace, replace(cluster.view, withdrawals=frozenset()))
    return outcome


def withdrawn(policies_: list[Object], workload: str) -> Mapping[str, Any] | None:
    """The entry of a workload in a policy's `status.withdrawn`."""
    for policy in policies_:
        for item in (policy.get("status") or {}).get("withdrawn") or ():
            if item.get("workload") == workload:
                found: Mapping[str, Any] = item
                return found
    return None
