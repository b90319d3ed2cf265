"""vLLM's own order, and the limit on admission by memory that any order may have."""

from collections import deque

import numpy as np

from trail.policy.step import admitted
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.order import NOBODY, Quiet


class FirstComeOrder:
    """First come, first served: vLLM's own queue, with an admission limit where `reserve_tokens` says one."""

    def __init__(self, engine: Engine, reserve_tokens: float = -1.0) -> None:
        self._engine = engine
        self._reserve = reserve_tokens
        self._waiting: deque[int] = deque()
        self.limit = engine.config.slots

    def __len__(self) -> int:
        return len(self._waiting)

    def arrive(self, begin: int, end: int) -> None:
        self._waiting.extend(range(begin, end))

    def before(self) -> None:
        if self._reserve < 0:
            return
        engine, room = self._engine, self._engine.room()
        first = [self._waiting[i] for i in range(min(max(room.free_slots, 0), len(self._waiting)))]
        needs = engine.whole_blocks(np.array([engine.known_tokens(r) for r in first], np.int64))
        allowed = admitted(needs, room, self._reserve)
        if allowed is not None:
            self.limit = room.running + allowed

    def first(self) -> int:
        return self._waiting[0] if self._waiting else NOBODY

    def pop(self) -> None:
        self._waiting.popleft()

    def lost(self, request: int) -> None:
        self._waiting.appendleft(request)

    def restore(self) -> None:
        self.limit = self._engine.config.slots

    def quiet(self) -> Quiet:
        # Whoever waits could not start, and cannot until somebody ends.
        engine = self._engine
        return Quiet(arrivals=not self._waiting and engine.present() < engine.config.slots)
