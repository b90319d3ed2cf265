"""How far a roll-out is, as `kubectl rollout status` judges it, and what its pods wait for. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trail_operator.reconcile.blocked import cause_of, shortened
from trail_operator.reconcile.status import condition

_BEGINS = frozenset({"ContainerCreating", "PodInitializing"})
"""What every container waits for."""


@dataclass(frozen=True)
class Rollout:
    """`done` where the cluster will do no more of it by itself."""

    done: bool
    sentence: str
    updated: int = -1
    """Pods of the present template, as its controller counts them; -1 where it has not."""
    expected: int = 0
    """Those once it is done."""
    note: str = ""
    """Why others keep what they have."""


def rollout(obj: Mapping[str, Any], kind: str) -> Rollout:
    """Of a Deployment or StatefulSet."""
    generation = int(obj["metadata"].get("generation") or 0)
    status = obj.get("status") or {}
    if int(status.get("observedGeneration") or 0) < generation:
        return Rollout(False, "its controller has not looked at it yet")
    return _stateful_set(obj, status) if kind == "StatefulSet" else _deployment(obj, status)


def _replicas_of(obj: Mapping[str, Any]) -> int:
    """How many pods it should have."""
    wanted = (obj.get("spec") or {}).get("replicas")
    return 1 if wanted is None else int(wanted)


def _deployment(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Rollout:
    wanted = _replicas_of(obj)
    every, updated, available = (
        int(status.get(key) or 0) for key in ("replicas", "updatedReplicas", "availableReplicas")
    )
    sentence = f"{updated} of {wanted} pods are updated"
    if updated < wanted:
        if (obj.get("spec") or {}).get("paused") is True:
            name = obj["metadata"].get("name")
            sentence = f"it is paused; its pods follow after `kubectl rollout resume deployment/{name}`"
        return Rollout(False, sentence, updated)
    if every > updated:
        return Rollout(False, f"{sentence}, {every - updated} old ones have not ended", updated)
    if available < updated:
        return Rollout(False, f"{sentence}, {available} available", updated)
    return Rollout(True, sentence, updated, wanted)


def _stateful_set(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Rollout:
    wanted = _replicas_of(obj)
    strategy = (obj.get("spec") or {}).get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return Rollout(
            True,
            "its update strategy is OnDelete",
            note="its update strategy is OnDelete: the others follow when they are deleted",
        )
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    due = max(wanted - partition, 0)
    ready, updated = (int(status.get(key) or 0) for key in ("readyReplicas", "updatedReplicas"))
    sentence = f"{updated} of {due} pods are updated"
    if ready < wanted:
        return Rollout(False, f"{sentence}, {ready} of {wanted} ready", updated)
    if updated < due:
        return Rollout(False, sentence, updated)
    note = f"pods below ordinal {partition} keep what they have (partition)" if partition else ""
    return Rollout(True, sentence, updated, due, note)


def obstacles(obj: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    """What keeps a roll-out, as far as workload and pods tell; '' where nothing is seen."""
    status = obj.get("status") or {}
    parts = []
    failure = condition(status, "ReplicaFailure")
    if failure.get("status") == "True":
        parts.append(f"pods cannot be made ({failure.get('reason')}): {_line(failure.get('message'))}")
    stuck = [text for pod in _by_name(pods) if (text := _stuck(pod))]
    waiting = [text for pod in _by_name(pods) if (text := _not_ready(pod))]
    for texts in (stuck, waiting):
        if texts:
            more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
            parts.append(f"{texts[0]}{more}")
            break
    if condition(status, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        parts.append("its progress deadline has passed (ProgressDeadlineExceeded)")
    return "; ".join(shortened(part) for part in parts)


def _by_name(pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("name")))


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _stuck(pod: Mapping[str, Any]) -> str:
    """What somebody may have to mend."""
    name = pod["metadata"].get("name")
    scheduled = condition(pod.get("status") or {}, "PodScheduled")
    if scheduled.get("status") == "False":
        return (
            f"pod {name} is not scheduled ({scheduled.get('reason', 'unknown')}):"
            f" {_line(scheduled.get('message'))}"
        )
    for container in _containers(pod):
        state = container.get("state") or {}
        reason = (state.get("waiting") or {}).get("reason")
        if reason and reason not in _BEGINS:
            return f"pod {name}, container {container.get('name')} waits ({reason}): {cause_of(container)[0]}"
        if (state.get("terminated") or {}).get("exitCode"):
            return f"pod {name}, container {container.get('name')} has ended: {cause_of(container)[0]}"
    return ""


def _not_ready(pod: Mapping[str, Any]) -> str:
    """What passes as a rule: a model that loads."""
    status = pod.get("status") or {}
    if condition(status, "Ready").get("status") == "True" or status.get("phase") != "Running":
        return ""
    names = [str(c.get("name")) for c in status.get("containerStatuses") or () if not c.get("ready")]
    return f"pod {pod['metadata'].get('name')} is not ready yet ({', '.join(names)})" if names else ""


def _line(text: Any) -> str:
    return " ".join(str(text or "no message").split())
