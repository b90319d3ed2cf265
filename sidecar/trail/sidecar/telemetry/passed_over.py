"""Whether the guard of the tail made a request wait for a longer one (`policy.guard`)."""

from bisect import bisect_right

KEPT = 4096
"""Admissions that are remembered at most; older ones count as never having been."""


class PassedOver:
    """Longest work admitted since any time, for one engine and priority class.

    Only admissions that nothing longer has followed are kept: times grow along the list and works fall, so
    that the first admission after a time is the longest after it.
    """

    def __init__(self) -> None:
        self._times: list[int] = []
        self._works: list[float] = []
        self._step_ns = 0
        self._step_work = 0.0

    def admitted(self, queued_ns: int, admitted_ns: int, work: float) -> bool:
        """Takes an admission, in the order of `admitted_ns`; True when a request of more work was admitted
        while this one, of `work`, waited. Those admitted in the same step went beside it, not before it."""
        if admitted_ns > self._step_ns:
            self._close_step()
            self._step_ns = admitted_ns
        self._step_work = max(self._step_work, work)
        first = bisect_right(self._times, queued_ns)
        return first < len(self._works) and self._works[first] > work

    def _close_step(self) -> None:
        if self._step_work <= 0:
            return
        while self._works and self._works[-1] <= self._step_work:
            self._works.pop()
            self._times.pop()
        self._times.append(self._step_ns)
        self._works.append(self._step_work)
        self._step_work = 0.0
        del self._times[:-KEPT], self._works[:-KEPT]
