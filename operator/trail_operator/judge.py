"""What becomes of a workload's pods, decided from its template as the webhook decides for a pod."""

import json
from collections.abc import Mapping
from typing import Any

from trail_operator import names
from trail_operator.cluster import Cluster, WorkloadRecord
from trail_operator.pods import annotations, examine, labels
from trail_operator.policy import TrailPolicy
from trail_operator.reasons import Reason, Skip
from trail_operator.resolve import Asked, resolve


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
        record.wish,
        cluster.namespaces.get(record.namespace),
    )


def judge(cluster: Cluster, asked: Asked, template: Mapping[str, Any]) -> TrailPolicy | Skip | None:
    """The policy that pods of `template` get, the reason why they get none, or None where nobody asks."""
    found = resolve(asked, cluster.view.policies, cluster.default)
    if not isinstance(found, TrailPolicy):
        return found
    target = examine(template, metrics_port=found.sidecar.metrics_port)
    if not isinstance(target, Skip):
        return found
    return target if asked.wanted or target.reason is not Reason.NO_VLLM_CONTAINER else None
