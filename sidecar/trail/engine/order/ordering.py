"""One step's order: what changes in vLLM's queues before vLLM's own `schedule()` runs."""

import time
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.engine.order.board_watch import BoardWatch
from trail.engine.order.denials import Denials
from trail.engine.order.queues import Queues
from trail.engine.order.ranked import Ranked, terms_of
from trail.engine.order.slots import SlotTable
from trail.engine.report.summaries import Summaries
from trail.policy import decide
from trail.policy.ranks import Terms
from trail.wire.board import BoardSnapshot
from trail.wire.lifecycle import Cause

MAX_MEMORY_VICTIMS = 4
"""Requests preempted in one step, at most, to make room for the head of the queue."""
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
    their order until the queue, their rows or the policy change; running ones are sorted only where memory
    may run out, which is when vLLM takes the last one's.

    Boosted arrivals change nothing in that. What they depend on beside sizes, how long the queue is, comes
    with an update of the board as well; with it the waiting ones are put in order anew. The less is left of a
    running request, the earlier its boosted arrival, and the size that a ratio compares only falls, too. The
    one exception is a running request that its deadline has brought forward: its rank rises by a token's time
    with every token, and whoever may then take its slot does so with the next update.
    """

    def __init__(self, queues: Queues, table: SlotTable, watch: BoardWatch, summaries: Summaries) -> None:
        self._queues = queues
        self._summaries = summaries
        self._denials = Denials(summaries, table)
        self._now_ns = 0
        self._table = table
        self._watch = watch
        self._ordered = False
        self._lost_board = False
        self._update = NO_UPDATE
        self._running = Ranked([], table)
        self._waiting = Ranked([], table)
        self._slots: NDArray[np.int64] = np.zeros(0, np.int64)
        self._waiting_rows = b""
        self._policy: tuple[Any, ...] = ()
        self._stuck: Any = None
        self._held: list[Any] = []
        self.fallback_steps = 0
        self.policy_preemptions = 0

    @property
    def denied(self) -> int:
        """Requests that waited, although a longer one ran, because that one was protected."""
        return self._denials.count

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
            if self._waiting.requests:
                self._look([], [])  # keep no request that has ended
            return
        update = self._watch.update
        if update == self._update and not tight and queues.free_slots() <= 0:
            return
        self._update = NO_UPDATE
        known = self._look(running, list(waiting))
        snapshot = self._watch.snapshot(self._slots)
        if snapshot is None:
            return
        if snapshot.header.order:
            self._order(snapshot, known=known, tight=tight, throttled=throttled)
        else:
            self.first_come_first_served()
            self._look(running, list(waiting))
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
        slot = self._table.by_id[request.request_id]
        self._table.admitted[slot] = True
        self._table.age[slot] = request.num_output_tokens + request.num_output_placeholders
        self._table.uncomputed[slot] = request.num_tokens

    def forget(self, slot: int) -> None:
        """The request in `slot` has ended."""
        self._denials.forget(slot)

    def rank_of(self, request: Any) -> float | None:
        """Rank of a request that waited before this step; None where vLLM's order was kept."""
        waiting = self._waiting
        if not self._ordered:
            return None
        try:
            return float(waiting.effective[waiting.requests.index(request)])
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
        self._policy = ()
        table, queues = self._table, self._queues

        def stock(request: Any) -> tuple[bool, int]:
            slot = table.by_id[request.request_id]
            return (not bool(table.admitted[slot]), int(table.arrival[slot]))

        queues.gather_skipped()
        queues.refill(sorted(queues.waiting, key=stock))
        queues.running.sort(key=lambda request: table.arrival[table.by_id[request.request_id]])

    def _order(self, snapshot: BoardSnapshot, *, known: bool, tight: bool, throttled: bool) -> None:
        """Put everybody in order, preempt and limit admission by `snapshot`.

        `known`: the same requests wait as in the last step, in order. `tight`: memory may run out.
        """
        self._ordered = True
        header, terms = snapshot.header, terms_of(snapshot.header)
        queues, running = self._queues, self._running
        n = len(running.requests)
        policy = (header.preempt, header.c, header.generation, header.epoch, terms if terms.boost else None)
        if not known or policy != self._policy or snapshot.rows[n:].tobytes() != self._waiting_rows:
            self._policy = policy
            self._order_waiting(snapshot.rows[n:], terms)
        if terms.preempt:
            running.read_running(snapshot.rows[:n], terms)
            if tight and running.sort() is not None:
                queues.running[:] = running.requests
                self._slots = np.concatenate((running.slots, self._waiting.slots))
        if self._waiting.requests:
            if terms.preempt and running.requests and not throttled and queues.admits():
                self._denials.look(self._waiting, running, terms, self._now_ns)
                self._preempt_for_slots(terms)
                self._preempt_for_memory(terms)
            self._limit_admission(terms)

    def _look(self, running: list[Any], waiting: list[Any]) -> bool:
        """Take in who runs and who waits. Whether the waiting ones are those of the last step, in order."""
        # Lists of the same objects compare by identity, which costs less than looking slots up again.
        same_running = running == self._running.requests
        same_waiting = waiting == self._waiting.requests
        if not same_running:
            self._running = Ranked(running.copy(), self._table)
        if not same_waiting:
            self._waiting = Ranked(waiting, self._table)
        if not (same_running and same_waiting):
            self._slots = np.concatenate((self._running.slots, self._waiting.slots))
        return same_waiting

    def _order_waiting(self, rows: NDArray[np.void], terms: Terms) -> None:
        waiting = self._waiting
        waiting.read_waiting(rows, terms)
        order = waiting.sort()
        if order is not None:
            rows = rows[order]
            self._queues.refill(waiting.requests)
            self._slots = np.concatenate((self._running.slots, waiting.slots))
        self._waiting_rows = rows.tobytes()

    def _limit_admission(self, terms: Terms) -> None:
        """Let vLLM start no more requests than the KV reserve allows."""
        if terms.kv_reserve_tokens < 0:
            return
        queues, waiting = self._queues, self._waiting.requests
        starting = self._startable(max(queues.free_slots(), 0))
        allowed = decide.admission_limit(
            [queues.need_tokens(waiting[i]) for i in starting],
            queues.capacity_tokens - queues.free_tokens(),
            queues.capacity_tokens,
            terms.kv_reserve_tokens,
            len(queues.running),
        )
        if allowed < len(starting):
            queues.lower_limit(len(queues.running) + allowed)

    def _preempt_for_slots(self, terms: Terms) -> None:
        """Let waiting requests take the slots of preemptible ones with larger ranks.

        Nobody gives way for one that the KV reserve would then keep out.
        """
        queues, running, waiting = self._queues, self._running, self._waiting
        free = max(queues.free_slots(), 0)
        if free >= len(waiting.requests):
            return
        if not running.effective.max() > waiting.effective[free]:
            self._denials.by_protection(free)
            return
        could = self._startable(free + len(running.requests))
        swaps = decide.slot_swaps(
            waiting.effective[could],
            running.effective,
            running.protected,
            running.arrival,
            free,
            waiting_size=waiting.size[could],
            running_size=running.size,
            ratio=terms.preempt_ratio,
        )
        if not swaps and len(could) > free:
            self._denials.for_slot(could[free])
        room = queues.free_tokens() - max(terms.kv_reserve_tokens, 0.0) * (len(running.requests) - 1)
        agreed: list[tuple[int, int]] = []
        for victim, newcomer in swaps:
            gives, takes = running.requests[victim], waiting.requests[could[newcomer]]
            room += queues.held_tokens(gives) - queues.need_tokens(takes)
            cause = self._obstacle(room, gives, takes)
            if cause is not None:
                self._denials.note(could[newcomer], victim, cause)
                break
            agreed.append((victim, could[newcomer]))
        self._preempt(agreed, Cause.SLOT)

    def _obstacle(self, room: float, gives: Any, takes: Any) -> Cause | None:
        """What keeps one request from taking another's slot, with `room` tokens of memory left then."""
        if room < 0:
            return Cause.MEMORY
        if not self._queues.can_give_way(gives):
            return Cause.BUSY
        return None if self._queues.lora_fits(takes) else Cause.ADAPTER

    def _preempt_for_memory(self, terms: Terms) -> None:
        """Let the first waiting request have the memory of preemptible ones with larger ranks.

        Only for one that vLLM itself could not place in the last step: how much it finds in the prefix cache
        is known to vLLM alone.
        """
        queues, running = self._queues, self._running
        head = self._waiting.requests[0]
        if head is not self._stuck or queues.free_slots() <= 0 or not queues.startable(head):
            return
        reserve = max(terms.kv_reserve_tokens, 0.0)  # which a victim gives back with its memory
        need = queues.need_tokens(head) + reserve * len(running.requests)
        free = queues.free_tokens()
        if need <= free:
            return
        victims = decide.memory_victims(
            need,
            free,
            newcomer=float(self._waiting.effective[0]),
            running=running.effective,
            running_protected=running.protected,
            held_tokens=np.array([queues.held_tokens(r) + reserve for r in running.requests], np.float64),
            most=MAX_MEMORY_VICTIMS,
            newcomer_size=float(self._waiting.size[0]),
            running_size=running.size,
            ratio=terms.preempt_ratio,
        )
        if not victims:
            if not self._denials.by_protection(0):
                self._denials.for_room(0)
            return
        busy = next((i for i in victims if not queues.can_give_way(running.requests[i])), None)
        if busy is not None:
            self._denials.note(0, busy, Cause.BUSY)
        else:
            self._preempt([(victim, 0) for victim in victims], Cause.ROOM)

    def _startable(self, most: int) -> list[int]:
        """Indices of the first `most` waiting requests that vLLM would not skip."""
        startable = self._queues.startable
        ready = (i for i, request in enumerate(self._waiting.requests) if startable(request))
        return list(islice(ready, most))

    def _preempt(self, pairs: list[tuple[int, int]], cause: Cause) -> None:
        """Preempt the first of each pair of running and waiting requests for the second, and hold it back for
        this step."""
        if not pairs:
            return
        timestamp = time.monotonic()
        running, waiting = self._running.requests, self._waiting.requests
        for request, newcomer in [(running[victim], waiting[taker]) for victim, taker in pairs]:
            self._summaries.policy_preempts(request, newcomer, cause)
            self._queues.preempt(request, timestamp)
            self._held.append(request)
            self._table.preemptions[self._table.by_id[request.request_id]] += 1
            self.policy_preemptions += 1
        self._running.keep(np.delete(np.arange(len(running)), [victim for victim, _ in pairs]))
        self._slots = np.concatenate((self._running.slots, self._waiting.slots))
