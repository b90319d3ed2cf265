"""The waiting queue in an order of ranks."""

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class RankedQueue:
    """Waiting requests by effective rank, then by arrival: the order of `decide.serving_order`.

    Requests are numbers in order of arrival. Ranks of those that wait do not change by themselves, so that
    one comes to its place by bisection.
    """

    def __init__(self) -> None:
        self.effective: list[float] = []
        self.requests: list[int] = []
        self.size: list[float] = []

    def __len__(self) -> int:
        return len(self.requests)

    def add(self, request: int, effective: float, size: float) -> None:
        """Put one request in its place."""
        low = bisect_left(self.effective, effective)
        high = bisect_right(self.effective, effective, lo=low)
        place = bisect_left(self.requests, request, low, high)
        self.effective.insert(place, effective)
        self.requests.insert(place, request)
        self.size.insert(place, size)

    def pop(self) -> int:
        """Take the first request away; its number."""
        del self.effective[0], self.size[0]
        return self.requests.pop(0)

    def rank_again(self, size: Floats, effective: Floats) -> None:
        """New sizes and effective ranks `[n]`, of the requests as they stand; puts them in order."""
        requests = np.array(self.requests, np.int64)
        # What decide.serving_order gives, faster where thousands wait; a test compares them.
        order = np.lexsort((requests, effective))
        self.effective = effective[order].tolist()
        self.requests = requests[order].tolist()
        self.size = size[order].tolist()
