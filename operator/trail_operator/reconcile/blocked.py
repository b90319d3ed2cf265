"""Whether something of ours keeps a pod from starting, and what a container's status tells of the cause."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trail_operator import names
from trail_operator.reasons import BlockReason

_CANNOT_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
                          "RegistryUnavailable", "ImageInspectError",
                          "SignatureValidationFailed"})  # fmt: skip
_CANNOT_START = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError",
                           "CrashLoopBackOff", "PreCreateHookError", "PreStartHookError"})  # fmt: skip
_SAYS_IT_ALL = frozenset({"InvalidImageName", "ErrImageNeverPull"})
"""Reasons that are a cause without a message."""
_BACKS_OFF = re.compile(
    r'back-off pulling image "[^"]*"|back-off (\S+ )?restarting failed container.*', re.IGNORECASE
)
"""What a kubelet says while it waits: that it does, and not why. Since 1.31 the reason of a pull follows."""
_LONGEST = 400


@dataclass(frozen=True)
class Blocked:
    """What keeps the pod, and a sentence."""

    reason: BlockReason
    message: str
    container: str = ""
    """Which of ours; '' where it is none."""
    telling: bool = True
    """Whether the sentence holds a cause, and not only that the kubelet waits before it tries again."""


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
        reason = _reason(container.get("state") or {})
        if reason is not None:
            cause, telling = cause_of(container)
            name = str(container["name"])
            return Blocked(
                reason, shortened(f"{name} ({container.get('image', '')}): {cause}"), name, telling
            )
    return _volume_missing(pod, conditions.get("PodScheduled") or {})


def cause_of(container: Mapping[str, Any]) -> tuple[str, bool]:
    """Why a container of a pod's status does not run, and whether that is more than that it is waited for.

    A container that has ended tells it best: its own last words, else the runtime's (`StartError`), else its
    exit code. A kubelet that backs off says nothing of its own.
    """
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    said = _line(waiting.get("message"))
    if said and not _BACKS_OFF.fullmatch(said):
        return said, True
    reason = _line(waiting.get("reason"))
    ended = state.get("terminated")
    # What ended before an image had to be pulled anew says nothing about the pull.
    if ended is None and reason not in _CANNOT_PULL:
        ended = (container.get("lastState") or {}).get("terminated")
    if ended is not None:
        return _last_words(ended), True
    return said or reason, not said and reason in _SAYS_IT_ALL


def shortened(text: str) -> str:
    """`text` at 400 characters at most. Its end stays, since runtimes wrap a cause from outside."""
    if len(text) <= _LONGEST:
        return text
    head = _LONGEST // 2
    return f"{text[:head]} ... {text[len(text) - (_LONGEST - head - 5) :]}"


def _reason(state: Mapping[str, Any]) -> BlockReason | None:
    reason = (state.get("waiting") or {}).get("reason")
    if reason in _CANNOT_PULL:
        return BlockReason.IMAGE_PULL_FAILED
    # Between two tries the kubelet shows the end of the one before.
    if reason in _CANNOT_START or (state.get("terminated") or {}).get("exitCode"):
        return BlockReason.CONTAINER_FAILED
    return None


def _last_words(ended: Mapping[str, Any]) -> str:
    how = f"{_line(ended.get('reason')) or 'ended'}, exit code {ended.get('exitCode', '?')}"
    said = _line(ended.get("message"))
    return f"{said} ({how})" if said else how


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())


def _volume_missing(pod: Mapping[str, Any], scheduled: Mapping[str, Any]) -> Blocked | None:
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("name") != names.VOLUME_PREDICTOR or claim is None:
            continue
        message = str(scheduled.get("message", ""))
        if scheduled.get("status") == "False" and f'persistentvolumeclaim "{claim}"' in message:
            return Blocked(BlockReason.VOLUME_MISSING, shortened(_line(message)))
    return None
