"""Whether something of ours keeps a pod from starting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trail_operator import names
from trail_operator.reasons import BlockReason

_CANNOT_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
                          "RegistryUnavailable", "ImageInspectError"})  # fmt: skip
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError",
                           "CrashLoopBackOff"})  # fmt: skip


@dataclass(frozen=True)
class Blocked:
    """What keeps the pod, and a sentence."""

    reason: BlockReason
    message: str


def blocked(pod: Mapping[str, Any]) -> Blocked | None:
    """What of ours keeps an injected pod from becoming ready, as its status tells now; it may pass."""
    status = pod.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or () if isinstance(c, Mapping)}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return None
    every = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    for container in every:
        if container.get("name") not in names.CONTAINERS:
            continue
        waiting = (container.get("state") or {}).get("waiting") or {}
        cause = waiting.get("message") or waiting.get("reason")
        why = f"{container['name']} ({container.get('image', '')}): {cause}"
        if waiting.get("reason") in _CANNOT_PULL:
            return Blocked(BlockReason.IMAGE_PULL_FAILED, why[:400])
        if waiting.get("reason") in _CANNOT_START:
            return Blocked(BlockReason.CONTAINER_FAILED, why[:400])
    return _volume_missing(pod, conditions.get("PodScheduled") or {})


def _volume_missing(pod: Mapping[str, Any], scheduled: Mapping[str, Any]) -> Blocked | None:
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("name") != names.VOLUME_PREDICTOR or claim is None:
            continue
        message = str(scheduled.get("message", ""))
        if scheduled.get("status") == "False" and f'persistentvolumeclaim "{claim}"' in message:
            return Blocked(BlockReason.VOLUME_MISSING, message[:400])
    return None
