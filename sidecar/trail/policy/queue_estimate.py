"""How long an engine's queue is and how long its steps are, in seconds, as the board states them."""

import numpy as np
import numpy.typing as npt

from trail.policy.guard import Guard

MOVED = 0.05
"""A value is stated anew when it has moved by more than this share: each statement is an update of the board,
after which the engine puts its queue in order."""
LEAST_S = 1e-3
"""Queues shorter than this are none."""
_MEMORY_STEPS = 50.0


class QueueEstimate:
    """One engine's W (`policy.guard`) and step time, measured all the time and stated when they have moved.

    `wait_s` and `token_s` are what is stated: how long the queue is, and the time from one token of a running
    request to its next; 0 until they are known.
    """

    def __init__(self, look_every_s: float, guard: Guard | None = None) -> None:
        self._every_ns = int(look_every_s * 1e9)
        self._guard = guard if guard is not None else Guard()
        self._looked_ns: int | None = None
        self._newest: tuple[int, int] | None = None
        self._step_s = 0.0
        self.wait_s = 0.0
        self.token_s = 0.0

    def due(self, now_ns: int) -> bool:
        """Whether it is time to look at the queue."""
        return self._looked_ns is None or now_ns - self._looked_ns >= self._every_ns

    def look(self, now_ns: int, queued_tokens: float, generated_tokens: float) -> None:
        """Takes what is predicted of waiting requests and the total of generated tokens, at `now_ns`."""
        self._looked_ns = now_ns
        wait_s = self._guard.observe(now_ns / 1e9, queued_tokens, generated_tokens)
        self.wait_s = _stated(self.wait_s, wait_s if wait_s >= LEAST_S else 0.0)
        self.token_s = _stated(self.token_s, self._step_s)

    def stepped(self, steps: npt.NDArray[np.int64], times_ns: npt.NDArray[np.int64]) -> None:
        """Takes numbers and times of steps [n], n at least 1, oldest first, during which requests ran."""
        newest = (int(steps[-1]), int(times_ns[-1]))
        before, self._newest = self._newest or (int(steps[0]), int(times_ns[0])), newest
        passed = newest[0] - before[0]
        if passed <= 0 or newest[1] <= before[1]:
            return
        measured_s = (newest[1] - before[1]) / passed / 1e9
        weight = min(passed / _MEMORY_STEPS, 1.0) if self._step_s else 1.0
        self._step_s += weight * (measured_s - self._step_s)

    def rested(self) -> None:
        """No request is open: the time until the next step says nothing of steps."""
        self._newest = None


def _stated(before: float, now: float) -> float:
    return now if abs(now - before) > MOVED * before else before
