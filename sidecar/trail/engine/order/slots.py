"""Open requests of one engine core, as arrays indexed by board slot."""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trail.wire.keys import request_key

FIRST_SIZE = 512
EMPTY_KEY = 0
PRIORITY_LIMIT = 2**31
"""Priorities beyond this are taken for this."""
_COLUMNS = (
    "key", "arrival", "age", "admitted", "initial", "arrival_s", "deadline_s", "priority", "uncomputed",
    "preemptions",
)  # fmt: skip


class SlotTable:
    """Gives every open request the lowest free slot and keeps what the order needs in arrays by slot.

    The table grows without bound; slots from the board's capacity on exist here only, so that a request
    beyond the board's size is one that the board does not know. Arrays are `[size]`: `key` (uint64, 0 is
    free), `arrival` (sequence number of `add`), `age` (generated tokens), `admitted` (ran at least once),
    `initial` (float32 tokens, the prediction last seen on a board, 0 before), `arrival_s` and `deadline_s`
    (seconds of CLOCK_MONOTONIC; infinity: none), `priority` (smaller first), `uncomputed` (known tokens to be
    computed when it starts), `preemptions` (how often it gave way to another). `arrivals` counts calls
    of `add` that took a slot.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        self.arrivals = 0
        self.by_id: dict[str, int] = {}
        self.size = 0
        self.key: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self.arrival: NDArray[np.int64] = np.zeros(0, np.int64)
        self.age: NDArray[np.int64] = np.zeros(0, np.int64)
        self.admitted: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.initial: NDArray[np.float32] = np.zeros(0, np.float32)
        self.arrival_s: NDArray[np.float64] = np.zeros(0, np.float64)
        self.deadline_s: NDArray[np.float64] = np.zeros(0, np.float64)
        self.priority: NDArray[np.int64] = np.zeros(0, np.int64)
        self.uncomputed: NDArray[np.int64] = np.zeros(0, np.int64)
        self.preemptions: NDArray[np.int64] = np.zeros(0, np.int64)
        self._grow(FIRST_SIZE)

    def __len__(self) -> int:
        return len(self.by_id)

    def _grow(self, size: int) -> None:
        for name in _COLUMNS:
            old = getattr(self, name)
            bigger = np.zeros(size, old.dtype)
            bigger[: self.size] = old
            setattr(self, name, bigger)
        for slot in range(self.size, size):
            heapq.heappush(self._free, slot)
        self.size = size

    def add(
        self,
        request_id: str,
        *,
        arrival_s: float = 0.0,
        deadline_s: float = math.inf,
        priority: int = 0,
        uncomputed: int = 0,
    ) -> int:
        """The slot of `request_id`, taken at its first call with what is known of it then."""
        if (known := self.by_id.get(request_id)) is not None:
            return known
        if not self._free:
            self._grow(2 * self.size)
        slot = heapq.heappop(self._free)
        self.by_id[request_id] = slot
        self.key[slot] = request_key(request_id)
        self.arrival[slot] = self.arrivals
        self.age[slot] = 0
        self.admitted[slot] = False
        self.initial[slot] = 0.0
        self.arrival_s[slot] = arrival_s
        self.deadline_s[slot] = deadline_s
        self.priority[slot] = min(max(priority, -PRIORITY_LIMIT), PRIORITY_LIMIT)
        self.uncomputed[slot] = uncomputed
        self.preemptions[slot] = 0
        self.arrivals += 1
        return slot

    def remove(self, request_id: str) -> int | None:
        """Free the slot of `request_id` and return it; None when the request is not in the table."""
        slot = self.by_id.pop(request_id, None)
        if slot is not None:
            self.key[slot] = EMPTY_KEY
            heapq.heappush(self._free, slot)
        return slot

    def open_slots(self) -> NDArray[np.int64]:
        """Slots in use, `[len(self)]`."""
        return np.fromiter(self.by_id.values(), np.int64, len(self.by_id))


@dataclass
class Recompute:
    """Tokens computed again after preemption, counted where vLLM schedules them.

    `above` holds, for each request that has not caught up, how many of its tokens had been computed once.
    """

    total: int = 0
    by_id: dict[str, int] = field(default_factory=dict)
    above: dict[str, int] = field(default_factory=dict)

    def preempted(self, request_id: str, computed_tokens: int) -> None:
        """`request_id` lost the cache of its first `computed_tokens` tokens."""
        self.above[request_id] = max(self.above.get(request_id, 0), computed_tokens)

    def computed(self, request_id: str, start: int, end: int) -> None:
        """Tokens `start` to `end` (exclusive) of `request_id` are being computed."""
        top = self.above.get(request_id)
        if top is None:
            return
        again = max(min(end, top) - start, 0)
        self.total += again
        self.by_id[request_id] = self.by_id.get(request_id, 0) + again
        if end >= top:
            del self.above[request_id]

    def forget(self, request_id: str) -> int:
        """Tokens computed again for `request_id`, which has ended."""
        self.above.pop(request_id, None)
        return self.by_id.pop(request_id, 0)
