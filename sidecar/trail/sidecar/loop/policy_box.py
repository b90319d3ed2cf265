"""The policy in force, shared by the gRPC threads and the loop."""

import threading

from trail.policy.spec import PolicySpec


class PolicyBox:
    """Holds a policy and its generation, which grows by one at every change, and why it is what it is."""

    def __init__(self, spec: PolicySpec) -> None:
        self._lock = threading.Lock()
        self._current = (spec, 1)
        self.reason = "as stated at the start"

    @property
    def current(self) -> tuple[PolicySpec, int]:
        """Policy and generation, read together."""
        return self._current

    def set(self, spec: PolicySpec, reason: str = "") -> tuple[PolicySpec, int]:
        """Puts `spec` in force and returns it with its generation; `reason` says why in a few words."""
        with self._lock:
            self._current = (spec, self._current[1] + 1)
            self.reason = reason
            return self._current
