"""A TrailPolicy's status, from what is known of its pods and of the loop. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trail_operator.admission.confighash import policy_hash
from trail_operator.control.loop import LoopStatus
from trail_operator.reasons import ConditionReason
from trail_operator.reconcile.cluster import PodRecord, PolicyRecord

Object = dict[str, Any]

_MOST_WORKLOADS = 100
_MESSAGE_LIMIT = 1000

_Said = tuple[str, ConditionReason, str]
"""Status, reason and message of a condition."""


@dataclass(frozen=True)
class Evidence:
    """What a status is made of."""

    pods: Sequence[PodRecord]
    loops: Mapping[str, LoopStatus] = field(default_factory=dict)
    """By workload."""
    problems: Sequence[str] = ()
    """What the operator could not do for this policy, in sentences."""
    withdrawn: Sequence[Object] = ()


def build_status(record: PolicyRecord, evidence: Evidence, now: str) -> Object:
    """The status as a merge patch: null for the unknown. `now` is RFC 3339; times of the unchanged stay."""
    before = record.status
    healthy = sum(pod.running and pod.sidecar_up for pod in evidence.pods)
    down = sum(pod.running and not pod.sidecar_up for pod in evidence.pods)
    said = sum(loop.falling_back for loop in evidence.loops.values())
    outdated = _outdated(record, evidence.pods)
    workloads = _workloads(evidence, before, now)
    pressures = [w["kvPressure"] for w in workloads if w["kvPressure"] is not None]
    return {
        "observedGeneration": record.generation,
        "conditions": _conditions(record, evidence, down + said, outdated, now),
        "pods": {
            "injected": len(evidence.pods),
            "healthy": max(healthy - said, 0),
            "fallingBack": min(down + said, len(evidence.pods)),
            "outdated": outdated,
        },
        "c": _latest_c(record, workloads, evidence, now),
        "kvPressure": max(pressures, default=None),
        "workloads": [_without_nulls(w) for w in workloads] or None,
        "withdrawn": list(evidence.withdrawn) or None,
    }


def same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether writing `after` over `before` would change nothing."""
    return bool(_without_nulls(before) == _without_nulls(after))


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """One condition of a status; empty where there is none."""
    for item in obj.get("conditions") or ():
        if isinstance(item, Mapping) and item.get("type") == kind:
            return item
    return {}


def _outdated(record: PolicyRecord, pods: Iterable[PodRecord]) -> int:
    if record.entry.policy is None:
        return 0
    present = policy_hash(record.entry.policy)
    return sum(pod.policy_hash != present for pod in pods)


def _workloads(evidence: Evidence, before: Mapping[str, Any], now: str) -> list[Object]:
    known = {str(w.get("workload")): w for w in before.get("workloads") or () if isinstance(w, Mapping)}
    counts: dict[str, int] = {}
    for pod in evidence.pods:
        counts[pod.workload] = counts.get(pod.workload, 0) + 1
    out = []
    for workload in sorted({*counts, *evidence.loops})[:_MOST_WORKLOADS]:
        loop = evidence.loops.get(workload) or LoopStatus()
        earlier = known.get(workload, {})
        c = None if loop.c is None else round(loop.c, 4)
        since = earlier.get("since") if earlier.get("c") == c and earlier.get("since") else now
        out.append({
            "workload": workload,
            "pods": counts.get(workload, 0),
            "c": c,
            "kvPressure": _rounded(loop.pressure.usage if loop.pressure else None),
            "since": since if c is not None else None,
            "reason": loop.reason or None,
        })  # fmt: skip
    return out


def _latest_c(record: PolicyRecord, workloads: list[Object], evidence: Evidence, now: str) -> Object | None:
    moved = [w for w in workloads if w["c"] is not None]
    if moved:
        last = max(moved, key=lambda w: (w["since"], w["workload"]))
        return {
            "effective": last["c"],
            "since": last["since"],
            "reason": last["reason"],
            "generation": evidence.loops[last["workload"]].generation,
            "workload": last["workload"],
        }
    policy = record.entry.policy
    if policy is None:
        return None
    before = record.status.get("c") or {}
    value = round(policy.c.value, 4)
    same_c = before.get("effective") == value and before.get("since")
    return {
        "effective": value,
        "since": before["since"] if same_c else now,
        "reason": "set by the policy; nothing moves it at present",
        "generation": None,
        "workload": None,
    }


def _conditions(
    record: PolicyRecord, evidence: Evidence, fallen: int, outdated: int, now: str
) -> list[Object]:
    waiting = sum(not pod.running for pod in evidence.pods)
    loops = sorted({loop.degraded for loop in evidence.loops.values() if loop.degraded})
    degraded: _Said = ("False", ConditionReason.AS_EXPECTED, "nothing is wrong")
    if record.entry.error:
        degraded = ("True", ConditionReason.INVALID_SPEC, record.entry.error)
    elif evidence.withdrawn:
        last = evidence.withdrawn[-1]
        message = f"{last['workload']}: {last.get('message', '')} ({len(evidence.withdrawn)} in all)"
        degraded = ("True", ConditionReason.WITHDRAWN, message)
    elif evidence.problems:
        degraded = ("True", ConditionReason.OPERATOR_FAILED, "; ".join(evidence.problems))
    elif loops:
        degraded = ("True", ConditionReason.LOOP_FAILED, "; ".join(loops))
    elif fallen:
        degraded = (
            "True",
            ConditionReason.FALLING_BACK,
            f"{fallen} of {len(evidence.pods)} pods are served first come, first served",
        )
    progressing: _Said = ("False", ConditionReason.SETTLED, "every pod is up with the present policy")
    if outdated:
        progressing = (
            "True",
            ConditionReason.ROLLING_OUT,
            f"{outdated} pods run with an earlier version of the policy",
        )
    elif waiting:
        progressing = ("True", ConditionReason.STARTING, f"{waiting} pods start")
    ready: _Said = (
        ("True", ConditionReason.ACCEPTED, "the policy is used")
        if not record.entry.error
        else ("False", ConditionReason.INVALID_SPEC, record.entry.error)
    )
    parts = {"Ready": ready, "Progressing": progressing, "Degraded": degraded}
    return [_condition(record, kind, values, now) for kind, values in parts.items()]


# No text is empty: servers of 1.20 take an empty one for null.
def _condition(record: PolicyRecord, kind: str, values: _Said, now: str) -> Object:
    status, reason, message = values
    before = condition(record.status, kind)
    unchanged = before.get("status") == status and before.get("lastTransitionTime")
    return {
        "type": kind,
        "status": status,
        "reason": str(reason),
        "message": message[:_MESSAGE_LIMIT],
        "observedGeneration": record.generation,
        "lastTransitionTime": before["lastTransitionTime"] if unchanged else now,
    }


def _rounded(value: float | None) -> float | None:
    """To one in a hundred: a status is not written for less."""
    return None if value is None or not math.isfinite(value) else round(value, 2)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value
