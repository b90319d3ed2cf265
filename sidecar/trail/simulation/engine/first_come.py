"""vLLM's own order, and the limit on admission by memory that any order may have."""

from collections import deque

from trail.policy import decide
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.order import NOBODY, Quiet


def allowed_to_start(engine: Engine, waiting: list[int], reserve_tokens: float) -> int:
    """How many requests may run in this step, by the KV reserve: `Ordering._limit_admission`.

    `waiting` holds at least the first `free slots` of those that wait, in order.
    """
    slots, size = engine.config.slots, engine.config.block_tokens
    if reserve_tokens < 0 or not waiting:
        return slots
    present = engine.present()
    starting = waiting[: max(slots - present, 0)]
    capacity = engine.capacity_blocks * size
    allowed = decide.admission_limit(
        [float(engine.need_blocks(r) * size) for r in starting],
        float(capacity - engine.blocks.free * size),
        float(capacity),
        reserve_tokens,
        present,
    )
    return min(present + allowed, slots) if allowed < len(starting) else slots


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
        if self._reserve >= 0:
            free = self._engine.config.slots - self._engine.present()
            first = [self._waiting[i] for i in range(min(max(free, 0), len(self._waiting)))]
            self.limit = allowed_to_start(self._engine, first, self._reserve)

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
