"""Why a waiting request that comes before a running one does not get its place."""

import numpy as np

from trail.engine.order.ranked import Ranked
from trail.engine.order.slots import SlotTable
from trail.engine.report.summaries import Summaries
from trail.policy import decide
from trail.policy.ranks import Terms
from trail.wire.lifecycle import Cause


class Denials:
    """Reports each cause once a request, for the step that `look` was called for.

    `count`: requests that waited, although a longer one ran, because that one was protected.
    """

    def __init__(self, summaries: Summaries, table: SlotTable) -> None:
        self._summaries = summaries
        self._table = table
        self._waiting = self._running = Ranked([], table)
        self._terms: Terms
        self._now_ns = 0
        self._protected: set[int] = set()
        self.count = 0

    def look(self, waiting: Ranked, running: Ranked, terms: Terms, now_ns: int) -> None:
        """Who waits and runs in the step at `now_ns`, both with their ranks."""
        self._waiting, self._running, self._terms, self._now_ns = waiting, running, terms, now_ns

    def forget(self, slot: int) -> None:
        """The request in `slot` has ended."""
        self._protected.discard(slot)

    def by_protection(self, newcomer: int) -> bool:
        """Whether a longer request than the waiting one at `newcomer` keeps its place as it is protected."""
        running, slot = self._running, int(self._waiting.slots[newcomer])
        if slot in self._protected:
            return True
        kept = np.flatnonzero(running.protected & self._outranked(newcomer, running.rank))
        if not len(kept):
            return False
        self._protected.add(slot)
        self.count += 1
        holder = int(kept[running.rank[kept].argmax()])
        self.note(newcomer, holder, self._protection(holder))
        return True

    def for_slot(self, newcomer: int) -> None:
        """The waiting one at `newcomer` takes nobody's slot, although unprotected ones may be longer."""
        self._longest(newcomer, Cause.RATIO)

    def for_room(self, newcomer: int) -> None:
        """It gets nobody's memory: none of the unprotected is long enough, or they have not enough of it."""
        enough = bool(self._outranked(newcomer, self._running.effective).any())
        self._longest(newcomer, Cause.MEMORY if enough else Cause.RATIO)

    def note(self, newcomer: int, holder: int, cause: Cause) -> None:
        """The running request at `holder` keeps its place for `cause`."""
        request, rank = self._waiting.requests[newcomer], float(self._waiting.effective[newcomer])
        self._summaries.denied(request, self._running.requests[holder], cause, rank, self._now_ns)

    def _longest(self, newcomer: int, cause: Cause) -> None:
        effective = self._running.effective
        holder = int(effective.argmax())
        if effective[holder] > self._waiting.effective[newcomer]:
            self.note(newcomer, holder, cause)

    def _outranked(self, newcomer: int, running: decide.Floats) -> decide.Bools:
        waiting = self._waiting
        return decide.outranked(
            float(waiting.effective[newcomer]),
            running,
            newcomer_size=float(waiting.size[newcomer]),
            running_size=self._running.size,
            ratio=self._terms.preempt_ratio,
        )

    def _protection(self, holder: int) -> Cause:
        """Past its cut-off age, or else spared after so many preemptions."""
        request, most = self._running.requests[holder], self._terms.max_preemptions
        age = request.num_output_tokens + request.num_output_placeholders
        limited = 0 <= most <= int(self._table.preemptions[self._running.slots[holder]])
        return Cause.LIMIT if limited and age < int(self._running.cutoff[holder]) else Cause.PROTECTED
