"""One admission review: bytes in, a valid answer out, whatever comes in. Allowed is always true."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trail_operator import names
from trail_operator.admission.confighash import injection_hash
from trail_operator.admission.containers import Plan
from trail_operator.admission.inject import inject, mark_skipped, strip
from trail_operator.admission.pods import annotations, examine, labels, workload_of
from trail_operator.policy.resolve import Asked, Policies, resolve
from trail_operator.reasons import Reason, Skip
from trail_operator.settings import InjectionSettings

_GROUP = "admission.k8s.io/"
_VERSIONS = frozenset({f"{_GROUP}v1", f"{_GROUP}v1beta1"})

Withdrawals = frozenset[tuple[str, str]]
"""Workload (`namespace/kind/name`) and injection hash of what was taken back."""


@dataclass(frozen=True)
class View:
    """What is known of the cluster at one moment. Nothing in it is changed in place."""

    policies: Policies
    settings: InjectionSettings
    default: tuple[str, str] | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    """Label `trail.dev/inject` by namespace, where there is one."""
    withdrawals: Withdrawals = frozenset()
    native: bool = True


@dataclass(frozen=True)
class Outcome:
    """What was decided: `injected`, `skipped`, `ignored` (nobody asked) or `malformed`."""

    kind: str
    skip: Skip | None = None
    namespace: str = ""
    workload: str = ""
    pod: Mapping[str, Any] | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Answer:
    """The response's bytes, and the outcome for metrics and Events."""

    body: bytes
    outcome: Outcome


def answer(body: bytes, view: View) -> Answer:
    """Answers an AdmissionReview (`admission.k8s.io/v1` or `v1beta1`). Never raises."""
    uid, version = "", f"{_GROUP}v1"
    try:
        review = json.loads(body)
        if isinstance(review, dict) and review.get("apiVersion") in _VERSIONS:
            version = review["apiVersion"]
        request = review["request"]
        uid = request["uid"] if isinstance(request["uid"], str) else ""
        pod, namespace = request["object"], request["namespace"]
        if (
            request.get("operation", "CREATE") != "CREATE"
            or not _is_pod(pod)
            or not isinstance(namespace, str)
        ):
            return _respond(uid, version, Outcome("malformed"))
        outcome, changed = decide(pod, namespace, view, dry_run=request.get("dryRun") is True)
        return _respond(uid, version, outcome, _patch(pod, changed))
    except Exception as error:  # noqa: BLE001 - a pod must never wait for our mistakes
        kind = "skipped" if uid else "malformed"
        skip = Skip(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {str(error)[:200]}") if uid else None
        return _respond(uid, version, Outcome(kind, skip))


def decide(
    pod: dict[str, Any], namespace: str, view: View, *, dry_run: bool = False
) -> tuple[Outcome, dict[str, Any]]:
    """What becomes of a pod: the outcome and the pod as it should be."""
    bare = strip(pod)
    workload = workload_of(bare, namespace)
    mine = annotations(bare)
    asked = Asked(
        namespace,
        labels(bare),
        mine.get(names.INJECT),
        mine.get(names.STAMPED_INJECT),
        view.namespace_labels.get(namespace),
    )
    policy = resolve(asked, view.policies, view.default)
    if policy is None:
        return Outcome("ignored", None, namespace, workload), bare
    if isinstance(policy, Skip):
        skip: Skip | None = policy
    else:
        target = examine(bare, metrics_port=policy.sidecar.metrics_port)
        skip = target if isinstance(target, Skip) else None
        if (workload, injection_hash(policy, view.settings)) in view.withdrawals:
            skip = Skip(
                Reason.WITHDRAWN,
                f"TRAIL kept pods of this workload from starting; see status.withdrawn of {policy.key}",
            )
        elif not isinstance(target, Skip):
            plan = Plan(policy, view.settings, target, view.native, namespace, workload)
            return Outcome("injected", None, namespace, workload, bare, dry_run), inject(bare, plan)
    assert skip is not None  # noqa: S101 - for the type checker
    if not asked.wanted and (not skip.wanted or skip.reason is Reason.NO_VLLM_CONTAINER):
        return Outcome("ignored", skip, namespace, workload), bare
    return Outcome("skipped", skip, namespace, workload, bare, dry_run), mark_skipped(bare, skip)


def _is_pod(pod: Any) -> bool:
    if not isinstance(pod, dict) or not isinstance(pod.get("metadata", {}), dict):
        return False
    spec = pod.get("spec")
    return isinstance(spec, dict) and isinstance(spec.get("containers"), list)


def _patch(pod: Mapping[str, Any], changed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """JSON patch from one pod to another, in whole fields of `metadata` and `spec`: nothing else differs."""
    out: list[dict[str, Any]] = []
    for part in ("metadata", "spec"):
        before, after = pod.get(part), changed.get(part, {})
        if before is None:
            out += [{"op": "add", "path": f"/{part}", "value": after}] if after else []
            continue
        out += [{"op": "remove", "path": f"/{part}/{_pointer(key)}"} for key in before.keys() - after.keys()]
        out += [
            {"op": "add", "path": f"/{part}/{_pointer(key)}", "value": value}
            for key, value in after.items()
            if key not in before or before[key] != value
        ]
    return out


def _pointer(field: str) -> str:
    return field.replace("~", "~0").replace("/", "~1")


def _respond(uid: str, version: str, outcome: Outcome, patch: list[dict[str, Any]] | None = None) -> Answer:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
    if outcome.kind == "skipped" and outcome.skip is not None:
        # The API server cuts longer ones.
        response["warnings"] = [
            f"TRAIL was not injected ({outcome.skip.reason}): {outcome.skip.message}"[:256]
        ]
    body = {"apiVersion": version, "kind": "AdmissionReview", "response": response}
    return Answer(json.dumps(body).encode(), outcome)
