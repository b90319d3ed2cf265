"""When the sidecar leaves cores to vLLM: after a round, while nobody waits, and between pieces of work."""

import os
import time
from collections.abc import Callable

from trail.sidecar.pacing import Pacing

KV_FULL = 0.8
"""Share of the KV cache in use from which memory, not slots, may make requests wait."""


class Rests:
    """Pauses of one loop, from what its rounds took.

    A rank gets older by the pause; where cores are scarce, one taken from vLLM costs more than that. Whether
    they are shows in the rounds themselves: on a core of its own a round takes as long as its CPU time.
    """

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._pause_s = pacing.loop_rest_least_s
        self._waited = 0.0

    def after(self, busy: bool, cpu_s: float, wall_s: float) -> float:
        """Pause in seconds after a round that took `cpu_s` of CPU time and `wall_s` in all."""
        pacing = self._pacing
        if not busy:
            self._pause_s = min(self._pause_s * pacing.loop_look_growth, pacing.loop_look_most_s)
            return self._pause_s
        waited = max(1.0 - cpu_s / wall_s, 0.0) if wall_s > 0 else 0.0
        self._waited = pacing.crowded_memory * self._waited + (1 - pacing.crowded_memory) * waited
        crowding = min(self._waited / pacing.crowded_share, 1.0)
        free_s, crowded_s = pacing.loop_rest_most_s, pacing.loop_rest_crowded_most_s
        limit_s = free_s + crowding * (crowded_s - free_s)
        self._pause_s = min(max(pacing.loop_rest * cpu_s, pacing.loop_rest_least_s), limit_s)
        return self._pause_s


class Idle:
    """Whether nobody waits for one engine: its order does not matter then, and predictions can rest.

    Busy at once when somebody waits or the next request would have to, idle when that has not been so for
    `idle_after_s`.
    """

    def __init__(self, pacing: Pacing) -> None:
        self._after_ns = pacing.idle_after_s * 1e9
        self._busy_ns: int | None = None

    def look(self, now_ns: int, *, open_requests: int, slots: int, waiting: int, kv_usage: float) -> bool:
        """Whether the engine is idle at `now_ns`, with `slots` requests running at most (0: not known)."""
        if self._busy_ns is None or open_requests >= slots or waiting or kv_usage >= KV_FULL:
            self._busy_ns = now_ns
        return now_ns - self._busy_ns >= self._after_ns


class YieldCore:
    """One thread's offers of its core: call it between pieces of work of about a tenth of a millisecond.

    vLLM's engine core and workers poll for each other's messages and offer their core at every look. Where
    all cores are taken, a sidecar that computes for a millisecond on end holds a step up for as long; one
    that offers the core in turn every tenth of that lets the engine core look, and go on, in between. On a
    free core it costs about a microsecond.
    """

    def __init__(
        self,
        pacing: Pacing,
        offer: Callable[[], None] = os.sched_yield,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._late_ns = int(pacing.yield_late_s * 1e9)
        self._again_ns = int(pacing.yield_again_s * 1e9)
        self._offer = offer
        self._clock = clock
        self._not_before_ns = 0

    def __call__(self) -> None:
        """Offers the core, unless it came back late of late."""
        before_ns = self._clock()
        if before_ns < self._not_before_ns:
            return
        self._offer()
        after_ns = self._clock()
        if after_ns - before_ns > self._late_ns:
            self._not_before_ns = after_ns + self._again_ns
