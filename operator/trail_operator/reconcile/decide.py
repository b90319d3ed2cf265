"""What becomes of a workload's pods, decided from its template as the webhook decides for a pod."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trail_operator import names
from trail_operator.admission.pods import annotations, examine, labels
from trail_operator.admission.stamp import Stamp, desired
from trail_operator.policy.resolve import OFF, Asked, resolve
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reasons import Reason, Skip
from trail_operator.reconcile.cluster import Cluster, WorkloadRecord


@dataclass(frozen=True)
class Verdict:
    """What becomes of a workload and of its pods."""

    asked: Asked
    outcome: TrailPolicy | Skip | None
    """For pods of its template."""
    otherwise: TrailPolicy | Skip | None
    """For them without the workload's own annotation."""
    stamp: Stamp
    """What its template should carry."""
    owned: Skip | None
    """Why a workload that asks gets no stamp although its pods would get TRAIL: its owner would undo it."""


def decide_workload(cluster: Cluster, record: WorkloadRecord) -> Verdict:
    """Decides about a Deployment or StatefulSet."""
    template = template_of(record)
    asked = asked_of(cluster, record, template)
    outcome = decide(cluster, asked, template)
    otherwise = decide(cluster, replace(asked, workload=None), template)
    stamp = desired(record.annotation, outcome, record.stamp, otherwise)
    owned = None
    if record.owner and (isinstance(outcome, TrailPolicy) or record.stamp != Stamp()):
        # Its owner would take our annotations out again, for ever.
        stamp = Stamp()
        if record.annotation is not None and record.annotation.strip().lower() not in OFF:
            owned = Skip(
                Reason.OWNED_WORKLOAD,
                f"{record.owner} owns it and would undo changes; put {names.INJECT} on the pods there",
            )
    return Verdict(asked, outcome, otherwise, stamp, owned)


def template_of(record: WorkloadRecord) -> dict[str, Any]:
    """The pod template."""
    template: dict[str, Any] = json.loads(record.template)
    return template


def asked_of(cluster: Cluster, record: WorkloadRecord, template: Mapping[str, Any]) -> Asked:
    """Who says what about TRAIL in a workload's pods."""
    return Asked(
        record.namespace,
        labels(template),
        annotations(template).get(names.INJECT),
        record.annotation,
        cluster.namespaces.get(record.namespace),
    )


def decide(cluster: Cluster, asked: Asked, template: Mapping[str, Any]) -> TrailPolicy | Skip | None:
    """The policy that pods of `template` get, the reason why they get none, or None where nobody asks."""
    found = resolve(asked, cluster.view.policies, cluster.default)
    if not isinstance(found, TrailPolicy):
        return found
    target = examine(template, metrics_port=found.sidecar.metrics_port)
    if not isinstance(target, Skip):
        return found
    return target if asked.wanted or target.reason is not Reason.NO_VLLM_CONTAINER else None
