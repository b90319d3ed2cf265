"""`trail explain-injection POD`: why a pod runs with TRAIL or without it."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from trail.commands.cluster.outlook import Operator, Sight, Withdrawal, find_operator, foreign, look, of_pod
from trail.commands.cluster.session import (
    APPS,
    PLURALS,
    Object,
    Session,
    add_arguments,
    allowed,
    fetch,
)
from trail.commands.cluster.session import (
    run as run_session,
)
from trail_operator import names
from trail_operator.admission.confighash import policy_hash
from trail_operator.admission.inject import read_status
from trail_operator.admission.pods import annotations, workload_of
from trail_operator.admission.review import Outcome
from trail_operator.cluster_api.kube import path

WEBHOOK = "inject.trail.dev"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail explain-injection`."""
    parser.description = (
        "Say why a pod was injected or not, and what would become of it now. Exit code 0 where it runs with"
        " TRAIL, 1 where it does not."
    )
    parser.add_argument("pod", metavar="POD", help="name of the pod")
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 for an injected pod, 1 otherwise."""
    return run_session("explain-injection", args, lambda session: _explain(session, args.pod))


async def _explain(session: Session, name: str) -> int:
    name = name.removeprefix("pod/")
    pod = await fetch(session, path("v1", "pods", session.namespace, name), f"pod {name}")
    status = read_status(pod)
    workload = workload_of(pod, session.namespace)
    annotation = await _annotation(session, workload)
    sight = await look(
        session, await find_operator(session), foreign(annotation, annotations(pod).get(names.INJECT))
    )
    outcome, item = of_pod(sight, pod, session.namespace, annotation)
    if status is not None and status.get("injected") is True:
        print("\n".join((*injected(pod, status, sight), *taken_back(item))))
        return 0
    lines = [*bare(status, outcome, annotation), *taken_back(item)]
    if status is None and outcome.kind == "injected":
        lines += [f"cause: {why}" for why in await _causes(session, pod)]
    print("\n".join(lines))
    return 1


def taken_back(item: Withdrawal | None) -> Iterator[str]:
    """What is to say of a withdrawal from the pod's workload."""
    if item is not None:
        yield f"TRAIL was taken back from {item.workload} at {item.since} ({item.reason}): {item.message}"
        yield f"a pod that is made anew stays without TRAIL: {item.advice}"


def injected(pod: Object, status: Mapping[str, Any], sight: Sight) -> Iterator[str]:
    """What is to say of an injected pod."""
    yield f"{pod['metadata']['name']} was injected by TrailPolicy {status.get('policy')}"
    yield f"vLLM is container {status.get('container')}; it belongs to {status.get('workload')}"
    kind = "a native sidecar" if status.get("native") else "a plain container"
    yield f"{names.SIDECAR} is {kind}: {_state(pod)}"
    namespace, _, name = str(status.get("policy", "")).partition("/")
    record = sight.cluster.policies.get((namespace, name))
    if record is None:
        yield "its policy is gone, or you may not see it; the pod keeps what it was given"
    elif record.entry.policy is None:
        yield f"its policy is invalid now ({record.entry.error}); the pod keeps what it was given"
    elif policy_hash(record.entry.policy) != status.get("policyHash"):
        yield "its policy has changed since; a new pod gets the present one"
    else:
        yield "its policy has not changed since, but for c, which it follows"


def bare(status: Mapping[str, Any] | None, outcome: Outcome, annotation: str | None) -> Iterator[str]:
    """What is to say of a pod without TRAIL."""
    if status is None:
        yield "the webhook has not spoken about this pod"
    else:
        yield f"not injected ({status.get('reason')}): {status.get('message')}"
    if outcome.kind == "injected":
        yield "made anew now, it would be injected: delete it, or restart its workload"
    elif outcome.kind == "ignored":
        nobody = "neither pod nor workload nor namespace asks"
        asks = f"its workload says {annotation}" if annotation else nobody
        yield f"made anew now, nothing would happen: {asks}, and no selector of a TrailPolicy takes it"
    elif outcome.skip is not None:
        reason, message = outcome.skip.reason, outcome.skip.message
        if status is not None and status.get("reason") == reason:
            yield "the same would happen now"
        else:
            yield f"made anew now, it would not be injected ({reason}): {message}"
        yield f"see {reason} in docs/kubernetes/troubleshoot.md"


async def _annotation(session: Session, workload: str) -> str | None:
    namespace, kind, name = workload.split("/", 2)
    for known, plural in PLURALS.items():
        if known.lower() == kind:
            obj = await allowed(session.kube.get(path(APPS, plural, namespace, name)), {})
            return annotations(obj).get(names.INJECT)
    return None


async def _causes(session: Session, pod: Object) -> list[str]:
    """Why a pod that asks for TRAIL has never met the webhook: what can be seen."""
    where = path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")
    found = await allowed(session.kube.all(where), None)
    out = []
    if found is not None:
        hooks = [hook for obj in found for hook in obj.get("webhooks") or () if hook.get("name") == WEBHOOK]
        if not hooks:
            out.append(
                f"the cluster has no webhook {WEBHOOK}; install the chart, or switch webhook.enabled on"
            )
        elif not all(hook["clientConfig"].get("caBundle") for hook in hooks):
            out.append(
                "the webhook has no authority (caBundle) yet; look at the operator's container certificates"
            )
        elif any(_excludes(hook, session.namespace) for hook in hooks):
            out.append(
                f"the webhook leaves out namespace {session.namespace}; see webhook.excludedNamespaces"
            )
    operator: Operator = await find_operator(session)
    if operator.name and not operator.ready:
        out.append(f"the operator {operator.namespace}/{operator.name} is not ready")
    made = pod["metadata"].get("creationTimestamp", "?")
    return out or [f"the pod, made at {made}, is older than the wish, or the operator was away then"]


def _excludes(hook: Mapping[str, Any], namespace: str) -> bool:
    expressions = (hook.get("namespaceSelector") or {}).get("matchExpressions") or ()
    return any(
        e.get("key") == "kubernetes.io/metadata.name"
        and e.get("operator") == "NotIn"
        and namespace in (e.get("values") or ())
        for e in expressions
    )


def _state(pod: Object) -> str:
    status = pod.get("status") or {}
    every = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    found = next((s for s in every if s.get("name") == names.SIDECAR), None)
    if found is None:
        return "not started yet"
    state = found.get("state") or {}
    for kind in ("running", "waiting", "terminated"):
        if kind in state:
            detail = state[kind] or {}
            reason = f", {detail['reason']}" if detail.get("reason") else ""
            return f"{kind}{reason}, {found.get('restartCount', 0)} restarts"
    return "unknown"
