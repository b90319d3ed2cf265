"""What our containers ask of a node. Pure.

The kernel shares a contended core between containers by their CPU requests, and by nothing inside them: a
container without one has the least weight there is. So ours ask for a small part of what vLLM asks, and for
the least where vLLM asks for nothing; what a core has to spare they may use all the same. By a container
whose requests are not its limits a pod of class Guaranteed would lose its class, and its exclusive cores.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

Object = Mapping[str, Any]
Resources = dict[str, dict[str, str]]

SHARE = 20
"""The sidecar's CPU request is this part of vLLM's."""
LEAST_MILLIS, MOST_MILLIS = 1, 100
"""Bounds of that request, in thousandths of a core. One thousandth has the weight of no request at all."""
SIDECAR_CPU, SIDECAR_MEMORY = "1", "2Gi"
"""Limits of the sidecar."""
GUARANTEED_CPU = "500m"
"""The sidecar's part in a pod of class Guaranteed: half a core keeps its heartbeat on time, and is no whole
number, for which the static CPU manager would set a core apart."""
COPY_CPU, COPY_MEMORY = "100m", "64Mi"

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_QUANTITY = re.compile(_NUMBER + "(?:([eE][-+]?[0-9]{1,3})|(n|u|m|k|[MGTPE]|[KMGTPE]i|))")
_POWERS = {unit: Decimal(10) ** (3 * i) for i, unit in enumerate("num kMGTPE", -3) if unit != " "}
_UNITS = {"": Decimal(1), **_POWERS, **{f"{unit}i": Decimal(1024) ** i for i, unit in enumerate("KMGTPE", 1)}}


def sidecar_resources(pod: Object, vllm: Object) -> Resources:
    """Of the sidecar beside the container `vllm` of `pod`, where the policy does not state them."""
    if guaranteed(pod):
        return _equal(GUARANTEED_CPU, SIDECAR_MEMORY)
    millis = int(cpu_request(vllm) * 1000 / SHARE)
    request = f"{min(max(millis, LEAST_MILLIS), MOST_MILLIS)}m"
    return {
        # Memory cannot be taken back once it is used: what may be used is asked for.
        "requests": {"cpu": request, "memory": SIDECAR_MEMORY},
        "limits": {"cpu": SIDECAR_CPU, "memory": SIDECAR_MEMORY},
    }


def copy_resources(pod: Object) -> Resources:
    """Of the init containers that copy a few files, before vLLM starts."""
    if guaranteed(pod):
        return _equal(COPY_CPU, COPY_MEMORY)
    return {
        "requests": {"cpu": f"{LEAST_MILLIS}m", "memory": COPY_MEMORY},
        "limits": {"cpu": SIDECAR_CPU, "memory": COPY_MEMORY},
    }


def guaranteed(pod: Object) -> bool:
    """Whether a pod, as its author wrote it, is of class Guaranteed: requests that are limits, everywhere."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return bool(containers) and all(_is_guaranteed(container) for container in containers)


def cpu_request(container: Object) -> Decimal:
    """Cores that a container asks for; its limit where it states that alone, as the API server takes it."""
    resources = container.get("resources") or {}
    for part in ("requests", "limits"):
        value = (resources.get(part) or {}).get("cpu")
        if value is not None:
            return quantity(value) or Decimal(0)
    return Decimal(0)


def quantity(text: object) -> Decimal | None:
    """A Kubernetes quantity, as `100m` or `2Gi`, in cores or bytes; None for what is none."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        return None
    number, exponent, unit = found[1], found[2], found[3]
    return Decimal(f"{number}{exponent}") if exponent else Decimal(number) * _UNITS[unit]


def _is_guaranteed(container: Object) -> bool:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in ("cpu", "memory"):
        limit = quantity(limits.get(name))
        if not limit or quantity(requests.get(name, limits.get(name))) != limit:
            return False
    return True


def _equal(cpu: str, memory: str) -> Resources:
    return {part: {"cpu": cpu, "memory": memory} for part in ("requests", "limits")}
