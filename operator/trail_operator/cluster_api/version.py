"""What the cluster can do, told from its version."""

import re
from collections.abc import Iterable

NATIVE = (1, 29)
"""Native sidecars are on by default from here on."""
_SKEW = 3
"""A kubelet may be so many minor versions older than its API server."""

Version = tuple[int, int]


def parse_version(text: str) -> Version | None:
    """Major and minor of `v1.29.3-gke.1`; None for what is no version."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def native_sidecars(server: Version | None, kubelets: Iterable[str] | None) -> bool:
    """Whether every node runs native sidecars. `kubelets` are their versions, None where unknown.

    An old kubelet takes a native sidecar for an init container and waits for its end: the pod never starts.
    """
    if server is None or server < NATIVE:
        return False
    if kubelets is None:
        return server >= (NATIVE[0], NATIVE[1] + _SKEW)
    versions = [parse_version(text) for text in kubelets]
    return all(version is not None and version >= NATIVE for version in versions)
