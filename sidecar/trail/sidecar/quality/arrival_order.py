"""What has ended, in the order in which it arrived.

Of requests that are served together the short ones end first, and shortest-first serving adds to it: the
first hundred to end of a burst are its shortest. Whoever judges predictions in the order of ends takes them
for the workload. In the order of arrival what comes next does not depend on how long it was.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_HELD = 4096
"""What has ended and waits for an older one; one more, and the oldest that is open is passed over."""


class ArrivalOrder(Generic[T]):
    """Holds what has ended until everything that arrived before it has.

    `is_open` tells whether a key that arrived is still being served: one whose end was lost holds nothing up.
    """

    def __init__(self, is_open: Callable[[int], bool], most_held: int = MOST_HELD) -> None:
        self._is_open = is_open
        self._most_held = most_held
        self._order: OrderedDict[int, None] = OrderedDict()
        self._ended: dict[int, T | None] = {}

    def arrive(self, key: int) -> None:
        """`key` has arrived, after all others."""
        self._order[key] = None

    def end(self, key: int, result: T | None) -> list[T]:
        """`key` has ended with `result`, None for one that says nothing.

        Returns the results whose turn has come. One that was passed over, or never arrived, has its turn at
        once.
        """
        if key not in self._order:
            return [] if result is None else [result]
        self._ended[key] = result
        released: list[T] = []
        while self._order:
            oldest = next(iter(self._order))
            if oldest in self._ended:
                found = self._ended.pop(oldest)
                if found is not None:
                    released.append(found)
            elif self._is_open(oldest) and len(self._ended) <= self._most_held:
                break
            del self._order[oldest]
        return released
