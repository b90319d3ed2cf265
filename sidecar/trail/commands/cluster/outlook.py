"""What the operator would decide about a workload or a pod now, by its own code."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trail.commands.cluster.session import ClusterError, Object, Session, allowed, policies
from trail.wire.names import OPERATOR_PREFIX
from trail_operator import names
from trail_operator.admission.confighash import injection_hash
from trail_operator.admission.pods import annotations, workload_of
from trail_operator.admission.review import Outcome, decide
from trail_operator.admission.stamp import Stamp
from trail_operator.cluster_api.kube import KubeError, path
from trail_operator.config import from_arguments, make_parser
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reasons import Reason, Skip
from trail_operator.reconcile.cluster import Cluster, PolicyRecord, WorkloadRecord, to_workload
from trail_operator.reconcile.decide import decide_workload, template_of
from trail_operator.settings import InjectionSettings

OPERATOR_LABELS = "app.kubernetes.io/name=trail,app.kubernetes.io/component=operator"
_DEFAULT_POLICY = f"{OPERATOR_PREFIX}DEFAULT_POLICY"
_DECIDES_NOTHING = frozenset({"NAMESPACE", "IDENTITY"})
"""Of the operator's variables: what comes from elsewhere in every installation, and is in no injection."""


@dataclass(frozen=True)
class Operator:
    """What can be seen of the operator's installation; empty where there is none, or one may not look."""

    namespace: str = ""
    name: str = ""
    ready: int = 0
    wanted: int = 0
    default_policy: tuple[str, str] | None = None
    settings: InjectionSettings | None = None
    """What it adds to injections; None where not all of that can be seen."""
    visible: bool = True
    """Whether one may look for it."""


@dataclass(frozen=True)
class Sight:
    """What can be seen of what the operator decides by."""

    cluster: Cluster
    operator: Operator
    hidden: frozenset[str] = frozenset()
    """Namespaces whose TrailPolicies one may not list."""

    def unsure(self, outlook: "Outlook") -> bool:
        """Whether what one may not see could decide otherwise."""
        return self._unsure(outlook.record, outlook.outcome)

    def unsure_otherwise(self, outlook: "Outlook") -> bool:
        """The same of the workload without its own annotation."""
        return self._unsure(outlook.record, outlook.otherwise)

    def _unsure(self, record: WorkloadRecord, outcome: TrailPolicy | Skip | None) -> bool:
        if record.namespace in self.hidden:
            return True
        match outcome.reason if isinstance(outcome, Skip) else None:
            case Reason.NO_POLICY:
                default = self.operator.default_policy
                return not self.operator.visible or (default is not None and default[0] in self.hidden)
            case Reason.POLICY_NOT_FOUND:
                both = (record.annotation, annotations(template_of(record)).get(names.INJECT))
                return not self.hidden.isdisjoint(foreign(*both))
        return False


@dataclass(frozen=True)
class Withdrawal:
    """An entry of a policy's `status.withdrawn` that keeps a workload's pods without TRAIL."""

    policy: str
    workload: str
    reason: str
    message: str
    since: str
    stale: bool
    """Whether the policy has changed since, and the operator has not looked at it yet."""

    @property
    def why(self) -> str:
        """The cause, and as of when."""
        return f"{self.reason}: {self.message}, as of {self.since}"

    @property
    def advice(self) -> str:
        """What to do."""
        if self.stale:
            return (
                f"TrailPolicy {self.policy} has changed since, and the operator has not looked at it yet: it"
                " may try again by itself"
            )
        return (
            f"mend that, then change TrailPolicy {self.policy}, or `trail disable` and `trail enable` the"
            " workload, to have it tried again"
        )


@dataclass(frozen=True)
class Outlook:
    """What becomes of a workload's pods, with its own annotation and without it."""

    record: WorkloadRecord
    outcome: TrailPolicy | Skip | None
    otherwise: TrailPolicy | Skip | None
    stamp: Stamp
    """What its pod template should carry."""
    owned: Skip | None
    """Why its owner keeps the workload's annotation from coming to anything."""
    withdrawal: Withdrawal | None
    """What holds of the policy that applies."""

    @property
    def refusal(self) -> Skip | None:
        """Why the workload's own annotation leads to nothing."""
        return self.owned or (self.outcome if isinstance(self.outcome, Skip) else None)


async def find_operator(session: Session) -> Operator:
    """The operator's Deployment, wherever it is."""
    where = path("apps/v1", "deployments")
    found = await allowed(session.kube.all(where, OPERATOR_LABELS), None)
    if not found:
        return Operator(visible=found is not None)
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
        injection_settings(containers),
    )


def injection_settings(containers: Iterable[Mapping[str, Any]]) -> InjectionSettings | None:
    """What the operator adds to injections, by its own parser; None where any of it comes from elsewhere.

    The embedded Redis hands its key to the operator from a Secret, so it is None there.
    """
    own = next((c for c in containers if c.get("name") == "operator"), {})
    entries = {str(e["name"]): e for e in own.get("env") or () if str(e["name"]).startswith(OPERATOR_PREFIX)}
    needless = set(_DECIDES_NOTHING)
    if (entries.get(f"{OPERATOR_PREFIX}SIDECAR_REDIS_URL") or {}).get("value"):
        needless.add("REDIS_URL")
    texts: dict[str, str] = {}
    for name, entry in entries.items():
        value = str(entry.get("value") or "")
        if name.removeprefix(OPERATOR_PREFIX) in needless:
            continue
        if "valueFrom" in entry or "$(" in value:
            return None
        texts[name] = value
    if own.get("envFrom") or own.get("args"):
        return None
    # What the operator itself would refuse is told in its log, not here.
    with contextlib.suppress(ValueError, SystemExit), contextlib.redirect_stderr(io.StringIO()):
        return from_arguments(make_parser(texts).parse_args([])).injection
    return None


async def look(
    session: Session, operator: Operator, extra: tuple[str, ...] = (), *, strict: bool = True
) -> Sight:
    """The policies and the namespace that decide in the session's namespace, and those of `extra` ones.

    Raises for policies of the session's namespace that one may not see; unless `strict`, they are hidden.
    """
    cluster = Cluster(operator.settings or InjectionSettings("", ""), operator.default_policy)
    namespaces = {session.namespace, *extra}
    if operator.default_policy:
        namespaces.add(operator.default_policy[0])
    hidden = set()
    for namespace in sorted(namespaces):
        try:
            found = await policies(session, namespace)
        except (ClusterError, KubeError) as error:
            if isinstance(error, KubeError) and error.status != 403:
                raise
            if namespace == session.namespace and (strict or isinstance(error, ClusterError)):
                raise
            hidden.add(namespace)
            continue
        for obj in found:
            cluster.observe_policy(None, obj)
    where = path("v1", "namespaces", None, session.namespace)
    if (obj := await allowed(session.kube.get(where), None)) is not None:
        cluster.observe_namespace(None, obj)
    return Sight(cluster, operator, frozenset(hidden))


def sight_of(found: Sequence[Object], operator: Operator) -> Sight:
    """What can be told from TrailPolicies alone."""
    cluster = Cluster(operator.settings or InjectionSettings("", ""), operator.default_policy)
    for policy in found:
        cluster.observe_policy(None, policy)
    return Sight(cluster, operator)


def foreign(*texts: str | None) -> tuple[str, ...]:
    """Namespaces that annotations name policies of."""
    return tuple(text.split("/")[0].strip() for text in texts if text and "/" in text)


def of_workload(sight: Sight, obj: Object, kind: str) -> Outlook:
    """What becomes of a Deployment's or StatefulSet's pods."""
    record = to_workload(obj, kind)
    verdict = decide_workload(sight.cluster, record)
    outcome = verdict.outcome
    item = withdrawn(sight, record.key, outcome.key) if isinstance(outcome, TrailPolicy) else None
    return Outlook(record, outcome, verdict.otherwise, verdict.stamp, verdict.owned, item)


def of_pod(
    sight: Sight, pod: Object, namespace: str, workload_annotation: str | None
) -> tuple[Outcome, Withdrawal | None]:
    """What the webhook would do with `pod` if it were made anew, its workload's stamp in place."""
    fresh: Object = {key: pod[key] for key in ("apiVersion", "kind", "spec") if key in pod}
    metadata = dict(pod["metadata"])
    notes = dict(metadata.get("annotations") or {})
    if workload_annotation is not None:
        notes[names.STAMPED_INJECT] = workload_annotation
    fresh["metadata"] = {**metadata, "annotations": notes}
    workload = workload_of(pod, namespace)
    for record, item in _withdrawals(sight, workload):
        policy = record.entry.policy
        if policy is None:
            continue
        # By the settings that are seen here: with those of the operator the hash would be the entry's.
        held = frozenset({(workload, injection_hash(policy, sight.cluster.settings))})
        outcome, _ = decide(fresh, namespace, replace(sight.cluster.view, withdrawals=held))
        if outcome.skip is not None and outcome.skip.reason is Reason.WITHDRAWN:
            return replace(outcome, skip=replace(outcome.skip, message=item.why)), item
    outcome, _ = decide(fresh, namespace, replace(sight.cluster.view, withdrawals=frozenset()))
    return outcome, None


def withdrawn(sight: Sight, workload: str, policy: str = "") -> Withdrawal | None:
    """What holds for a workload, of one policy (`namespace/name`) or of any."""
    found = (item for _, item in _withdrawals(sight, workload) if policy in ("", item.policy))
    return next(found, None)


def _withdrawals(sight: Sight, workload: str) -> Iterator[tuple[PolicyRecord, Withdrawal]]:
    """The entries that hold for a workload.

    An entry names the injection that failed by a hash, to which the operator's own settings belong. Where
    they can be seen, the hash decides as it does for the webhook. Where they cannot, the entry is believed:
    the operator takes it out as soon as it has looked at the policy that lifts it.
    """
    for record in sight.cluster.policies.values():
        policy, settings = record.entry.policy, sight.operator.settings
        present = injection_hash(policy, settings) if policy is not None and settings is not None else None
        seen = int(record.status.get("observedGeneration") or 0)
        for item in record.status.get("withdrawn") or ():
            if not isinstance(item, Mapping) or item.get("workload") != workload:
                continue
            if present is not None and item.get("hash") != present:
                continue
            yield (
                record,
                Withdrawal(
                    policy=f"{record.entry.namespace}/{record.entry.name}",
                    workload=workload,
                    reason=str(item.get("reason") or "no reason is given"),
                    message=str(item.get("message") or "no message is given"),
                    since=str(item.get("since") or "an unknown time"),
                    stale=present is None and 0 < seen < record.generation,
                ),
            )
