"""One step's order: what changes in vLLM's queues before vLLM's own `schedule()` runs."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.engine.order.board_watch import BoardWatch
from trail.engine.order.gather import follow, rank_running, rank_waiting, slots_of, terms_of
from trail.engine.order.queues import Queues
from trail.engine.order.slots import SlotTable
from trail.engine.report.summaries import Summaries
from trail.policy.decide import serving_order
from trail.policy.ranks import Terms
from trail.policy.step import LEAST_ORDERED, Plan, Running, Waiting, admitted, plan_step, reach
from trail.wire.board import BOARD_ROW, BoardSnapshot
from trail.wire.changes import Cause

NO_UPDATE = -1
"""In place of a board's update: the next step looks in any case."""


class Ordering:
    """Orders, preempts and limits admission by the board; first come, first served without one.

    Requests preempted in a step stay out of the waiting queue while vLLM schedules it: one that leaves and
    comes back within a step would keep its row in the V1 model runner, with the blocks it gave back.

    Work is spared where it could change nothing. While every slot is taken and memory is not short, vLLM
    starts nobody, and between two updates of the board ranks only fall with age, so that nobody who had to
    wait may take a slot: such a step looks at the update's number and no further. A request that comes
    meanwhile is seen with the next update, which its own prediction causes. Otherwise waiting requests keep
    their order until the queue, their rows or the terms change; then those that the step could start, or
    give a slot, come first, in order, and the others behind them as they stood. Running requests are sorted
    only where memory may run out, which is when vLLM takes the last one's.

    Boosted arrivals change nothing in that. What they depend on beside sizes, how long the queue is, comes
    with an update of the board as well; with it the waiting ones are put in order anew. The less is left of a
    running request, the earlier its boosted arrival, and the size that a ratio compares only falls, too. The
    one exception is a running request that its deadline has brought forward: its rank rises by a token's time
    with every token, and whoever may then take its slot does so with the next update.
    """

    def __init__(self, queues: Queues, table: SlotTable, watch: BoardWatch, summaries: Summaries) -> None:
        self._queues = queues
        self._summaries = summaries
        self._now_ns = 0
        self._table = table
        self._watch = watch
        self._ordered = False
        self._lost_board = False
        self._update = NO_UPDATE
        self._keep_nobody()
        self._gone = 0
        """How often a request ended, or left the running ones."""
        # Of the waiting requests, as they stand: their rows as last read, and how many of them are in order.
        self._rows = b""
        self._effective = self._size = np.zeros(0)
        self._in_order = 0
        self._terms: Terms | None = None
        self._stuck: Any = None
        self._held: list[Any] = []
        self._protected_from: set[int] = set()
        self.fallback_steps = 0
        self.policy_preemptions = 0
        self.denied = 0
        """Requests that waited, although a longer one ran, because that one was protected."""

    def before(self, now_ns: int, throttled: bool) -> None:
        """Bring vLLM's queues into order for the step at `now_ns` (CLOCK_MONOTONIC).

        `throttled` says that vLLM will start no prompt in this step.
        """
        self._now_ns = now_ns
        if not self._watch.check(now_ns):
            self.fallback_steps += 1
            self._update = NO_UPDATE
            if not self._lost_board:
                self._lost_board = True
                self.remember_predictions()
            self.first_come_first_served()
            return
        self._lost_board = False
        queues = self._queues
        queues.gather_skipped()
        running, waiting = queues.running, queues.waiting
        tight = len(running) > 1 and queues.memory_may_run_out()
        if not waiting and not tight:
            self._keep_nobody()
            return
        update = self._watch.update
        if update == self._update and not tight and queues.free_slots() <= 0:
            return
        self._update = NO_UPDATE
        self._read_queues()
        snapshot = self._watch.snapshot(np.concatenate((self._running_slots, self._waiting_slots)))
        if snapshot is None:
            return
        if snapshot.header.order:
            self._order(snapshot, tight=tight, throttled=throttled)
        else:
            self._limit_admission(terms_of(snapshot.header))
        if not throttled:
            self._update = update

    def restore(self) -> None:
        """Undo what holds for one step only. Called after vLLM's `schedule()`, whatever came of it."""
        queues = self._queues
        queues.restore_limit()
        # Whoever is first while a slot is free did not find memory.
        waiting = queues.waiting
        self._stuck = waiting.peek_request() if waiting and queues.free_slots() > 0 else None
        while self._held:
            waiting.prepend_request(self._held.pop())

    def preempted(self, request: Any) -> None:
        """Note how far a running request had come; called before vLLM preempts it."""
        self._gone += 1
        slot = self._table.by_id[request.request_id]
        self._table.admitted[slot] = True
        self._table.age[slot] = request.num_output_tokens + request.num_output_placeholders
        self._table.uncomputed[slot] = request.num_tokens

    def forget(self, slot: int) -> None:
        """The request in `slot` has ended."""
        self._gone += 1
        self._protected_from.discard(slot)

    def rank_of(self, request: Any) -> float | None:
        """Rank of a request that waited before this step; None where vLLM's order was kept."""
        if not self._ordered:
            return None
        try:
            return float(self._effective[self._waiting.index(request)])
        except ValueError:  # it came after the last look
            return None

    def remember_predictions(self) -> None:
        """Keep the initial predictions that the board last showed, to send them to the next sidecar."""
        slots = self._table.open_slots()
        snapshot = self._watch.snapshot(slots) if len(slots) else None
        if snapshot is not None:
            known = snapshot.rows["key"] == self._table.key[slots]
            self._table.initial[slots[known]] = snapshot.rows["initial"][known]

    def first_come_first_served(self) -> None:
        """Once after TRAIL has ordered: stock order again, those that ran before first, then by arrival."""
        if not self._ordered:
            return
        self._ordered = False
        self._terms = None
        table, queues = self._table, self._queues

        queues.gather_skipped()
        slots = slots_of(table, list(queues.waiting))
        stock = np.lexsort((table.arrival[slots], ~table.admitted[slots]))
        queues.put_first(stock.tolist())
        queues.running.sort(key=lambda request: table.arrival[table.by_id[request.request_id]])

    def _order(self, snapshot: BoardSnapshot, *, tight: bool, throttled: bool) -> None:
        """Put requests in order, preempt and limit admission by `snapshot`. `tight`: memory may run out."""
        self._ordered = True
        running, queues = self._running, self._queues
        terms = terms_of(snapshot.header)
        rows = snapshot.rows[len(running) :]
        read = rows.tobytes()
        if terms != self._terms or read != self._rows:
            self._terms, self._rows = terms, read
            ranked = rank_waiting(self._table, self._waiting_slots, rows, terms)
            self._effective, self._size, self._in_order = ranked.effective, ranked.size, 0
        room = queues.room()
        first, ready = self._first(reach(room.free_slots, len(running), terms))
        plan = plan_step(
            self._waiting_facts(first, ready),
            self._running_facts(snapshot.rows[: len(running)], terms),
            room,
            terms,
            tight=tight,
            stuck=bool(first) and first[0] is self._stuck,
            starting=not throttled and queues.admits(),
        )
        self._carry_out(plan, first)

    def _keep_nobody(self) -> None:
        """Forget who ran and waited: they may have ended."""
        self._running: list[Any] = []
        self._waiting: list[Any] = []
        self._running_slots = self._waiting_slots = np.zeros(0, np.int64)
        self._queue: tuple[Any, ...] = ()

    def _read_queues(self) -> None:
        """Take in who runs and who waits."""
        running = self._queues.running
        # Lists of the same objects compare by identity, which costs less than looking slots up again.
        if running != self._running:
            self._running, self._running_slots = running.copy(), slots_of(self._table, running)
        if self._queue_now() != self._queue:
            waiting = list(self._queues.waiting)
            self._waiting_slots = follow(self._table, self._waiting, self._waiting_slots, waiting)
            self._waiting, self._rows, self._queue = waiting, b"", self._queue_now()

    def _queue_now(self) -> tuple[Any, ...]:
        """What differs after every change of the waiting queue, without going through thousands of requests.

        One that starts makes the queue shorter, or another has come; one that vLLM passes over stays where it
        was beside the others.
        """
        waiting = self._queues.waiting
        ends = (waiting[0], waiting[-1]) if waiting else ()
        return (self._table.arrivals, self._gone, len(waiting), *ends)

    def _first(self, count: int) -> tuple[list[Any], NDArray[np.bool_]]:
        """The first of the waiting requests, put in order: `count` that vLLM could start, and those between.

        Which of them it could. Where there are limits on adapters all are put in order: vLLM passes over
        requests that only another step could start.
        """
        n, everyone = len(self._waiting), self._queues.limits_adapters
        depth = min(max(count, LEAST_ORDERED), n)
        while True:
            if depth > self._in_order:
                self._put_in_order(n if everyone else depth)
            first = self._waiting[:depth]
            ready = self._queues.ready(first)
            if depth == n or int(ready.sum()) >= count:
                return first, ready
            depth = min(2 * depth, n)

    def _put_in_order(self, most: int) -> None:
        order = serving_order(self._effective, self._table.arrival.take(self._waiting_slots), most)
        if not np.array_equal(order, np.arange(len(order))):
            behind = np.ones(len(self._waiting), np.bool_)
            behind[order] = False
            self._queues.put_first(order.tolist())
            self._waiting, self._queue = list(self._queues.waiting), self._queue_now()
            order = np.concatenate((order, np.flatnonzero(behind)))
            self._waiting_slots = self._waiting_slots[order]
            self._effective, self._size = self._effective[order], self._size[order]
            self._rows = np.frombuffer(self._rows, BOARD_ROW).take(order).tobytes()
        self._in_order = most

    def _waiting_facts(self, first: list[Any], ready: NDArray[np.bool_]) -> Waiting:
        n = len(first)
        return Waiting(
            effective=self._effective[:n],
            size=self._size[:n],
            need_tokens=self._need_tokens(n),
            ready=ready,
            fits_batch=self._queues.fits_batch(first),
        )

    def _need_tokens(self, count: int) -> NDArray[np.float64]:
        """KV tokens that the first `count` need to start, if nothing of them is cached."""
        return self._queues.whole_blocks(self._table.uncomputed.take(self._waiting_slots[:count]))

    def _running_facts(self, rows: NDArray[np.void], terms: Terms) -> Running:
        """Of those that run, where they may be preempted; else of nobody."""
        requests = self._running if terms.preempt else []
        slots, table = self._running_slots[: len(requests)], self._table
        return Running(
            rank_running(table, slots, rows[: len(requests)], terms, requests),
            table.arrival[slots],
            self._queues.held_tokens(requests),
            self._queues.yields(requests),
        )

    def _carry_out(self, plan: Plan, first: list[Any]) -> None:
        """Do what `plan` says about the running requests and the `first` of those that wait."""
        queues, running = self._queues, self._running
        if plan.order is not None:
            queues.running[:] = [running[i] for i in plan.order.tolist()]
        for newcomer, holder, cause in plan.denials:
            request, rank = first[newcomer], float(self._effective[newcomer])
            self._summaries.denied(request, running[holder], cause, rank, self._now_ns)
            if cause in (Cause.PROTECTED, Cause.LIMIT):
                slot = int(self._waiting_slots[newcomer])
                self.denied += slot not in self._protected_from
                self._protected_from.add(slot)
        timestamp = time.monotonic()
        for victim, newcomer, cause in plan.swaps:
            self._preempt(running[victim], first[newcomer], cause, timestamp)
        if plan.admitted is not None:
            queues.lower_limit(len(queues.running) + plan.admitted)

    def _preempt(self, request: Any, newcomer: Any, cause: Cause, timestamp: float) -> None:
        """Preempt a running request, and hold it back for this step."""
        self._summaries.policy_preempts(request, newcomer, cause)
        self._queues.preempt(request, timestamp)
        self._held.append(request)
        self._table.preemptions[self._table.by_id[request.request_id]] += 1
        self.policy_preemptions += 1

    def _limit_admission(self, terms: Terms) -> None:
        """Keep vLLM's order, and let it start no more requests than the KV reserve allows."""
        self.first_come_first_served()
        if terms.kv_reserve_tokens < 0:
            return
        queues = self._queues
        self._read_queues()
        self._in_order = len(self._waiting)
        room = queues.room()
        first, ready = self._first(reach(room.free_slots, 0, terms))
        allowed = admitted(self._need_tokens(len(first))[ready], room, terms.kv_reserve_tokens)
        if allowed is not None:
            queues.lower_limit(len(queues.running) + allowed)
