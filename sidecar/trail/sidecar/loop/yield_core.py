"""Giving the core to others between pieces of work.

vLLM's engine core and workers poll for each other's messages and offer their core at every look. Where all
cores are taken, a sidecar that computes for a millisecond on end holds a step up for as long; one that
offers the core in turn every tenth of that lets the engine core look, and go on, in between. On a free core
it costs about a microsecond.
"""

import os
import time
from collections.abc import Callable

LATE_NS = 10_000_000
"""An offered core that comes back later than this was missed."""
BACKOFF_NS = 1_000_000_000
"""How long no core is offered after that: the heartbeat must not depend on how others use it."""


class Courtesy:
    """One thread's offers of its core."""

    def __init__(
        self, offer: Callable[[], None] = os.sched_yield, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._offer = offer
        self._clock = clock
        self._not_before_ns = 0

    def give_way(self) -> None:
        """Call between pieces of work of about a tenth of a millisecond."""
        before_ns = self._clock()
        if before_ns < self._not_before_ns:
            return
        self._offer()
        after_ns = self._clock()
        if after_ns - before_ns > LATE_NS:
            self._not_before_ns = after_ns + BACKOFF_NS
