"""The policy in force, shared by the gRPC threads and the loop."""

import threading

from trail.policy.spec import PolicySpec


class PolicyBox:
    """Holds a policy and its generation, which grows by one at every change."""

    def __init__(self, spec: PolicySpec) -> None:
        self._lock = threading.Lock()
        self._current = (spec, 1)

    @property
    def current(self) -> tuple[PolicySpec, int]:
        """Policy and generation, read together."""
        return self._current

    def set(self, spec: PolicySpec) -> tuple[PolicySpec, int]:
        """Puts `spec` in force and returns it with its generation."""
        with self._lock:
            self._current = (spec, self._current[1] + 1)
            return self._current


def policy_label(spec: PolicySpec) -> str:
    """A policy as `parse_policy` reads it: `trail-c0.8`, `fcfs`."""
    return spec.text
