"""One step's order: what changes in vLLM's queues before vLLM's own `schedule()` runs."""

import time
from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.engine.board_watch import BoardWatch
from trail.engine.queues import Queues
from trail.engine.slots import SlotTable
from trail.policy import decide
from trail.policy.ranks import cutoff_age
from trail.wire.board import BoardHeader

MAX_MEMORY_VICTIMS = 4
"""Requests preempted in one step, at most, to make room for the head of the queue."""
NO_UPDATE = -1
"""In place of a board's update: the next step looks in any case."""

_request_id = attrgetter("request_id")


class Ranked:
    """One queue's requests in its order, with what the board says about them, arrays `[n]`."""

    def __init__(self, requests: list[Any], table: SlotTable) -> None:
        self.requests = requests
        self.slots = np.fromiter(
            map(table.by_id.__getitem__, map(_request_id, requests)), np.int64, len(requests)
        )
        self.keys = table.key[self.slots]
        self.arrival = table.arrival[self.slots]
        self.rank: NDArray[np.float64] = np.zeros(0)
        self.protected: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.effective: NDArray[np.float64] = np.zeros(0)

    def read(
        self, rows: NDArray[np.void], header: BoardHeader, admitted: NDArray[np.bool_], age: NDArray[np.int64]
    ) -> None:
        """Ranks at `age` from board `rows`; by the mean where the board has no row of the request."""
        rank = decide.rank_now(rows["rank"], rows["slope"], rows["age"], age)
        cutoff = rows["cutoff"]
        known = rows["key"] == self.keys
        if not known.all():
            mean = header.mean_initial
            rank = np.where(known, rank, np.maximum(mean - age, 0.0))
            cutoff = np.where(known, cutoff, cutoff_age(header.c, np.array([mean])))
        self.rank = rank
        if header.preempt:
            self.protected = decide.is_protected(admitted, age, cutoff)
            self.effective = decide.effective_rank(rank, self.protected)
        else:
            self.protected = np.zeros(len(rank), np.bool_)
            self.effective = rank

    def sort(self) -> NDArray[np.intp] | None:
        """Put everything in serving order; the permutation, or None when it is in order already."""
        order = decide.serving_order(self.effective, self.arrival)
        if not (order[1:] < order[:-1]).any():
            return None
        self.keep(order)
        return order

    def keep(self, kept: NDArray[np.intp]) -> None:
        """Only the requests at `kept`, in that order."""
        self.requests = [self.requests[i] for i in kept.tolist()]
        self.slots, self.keys, self.arrival = self.slots[kept], self.keys[kept], self.arrival[kept]
        self.rank, self.protected = self.rank[kept], self.protected[kept]
        self.effective = self.effective[kept]


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
    """

    def __init__(self, queues: Queues, table: SlotTable, watch: BoardWatch) -> None:
        self._queues = queues
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
        self._denied: set[int] = set()
        self._held: list[Any] = []
        self.fallback_steps = 0
        self.policy_preemptions = 0
        self.denied = 0

    def before(self, now_ns: int, throttled: bool) -> None:
        """Bring vLLM's queues into order for the step at `now_ns` (CLOCK_MONOTONIC).

        `throttled` says that vLLM will start no prompt in this step.
        """
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
        header = snapshot.header
        if not header.order:
            self.first_come_first_served()
            self._update = update
            return
        self._ordered = True
        n = len(running)
        policy = (header.preempt, header.c, header.generation, header.epoch)
        if not known or policy != self._policy or snapshot.rows[n:].tobytes() != self._waiting_rows:
            self._policy = policy
            self._order_waiting(snapshot.rows[n:], header)
        if header.preempt:
            self._rank_running(snapshot.rows[:n], header)
            if tight and self._running.sort() is not None:
                running[:] = self._running.requests
                self._slots = np.concatenate((self._running.slots, self._waiting.slots))
        if self._waiting.requests:
            self._admit(header, throttled)
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

    def forget(self, slot: int) -> None:
        """The request in `slot` has ended."""
        self._denied.discard(slot)

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

    def _order_waiting(self, rows: NDArray[np.void], header: BoardHeader) -> None:
        table, waiting = self._table, self._waiting
        waiting.read(rows, header, table.admitted[waiting.slots], table.age[waiting.slots])
        order = waiting.sort()
        if order is not None:
            rows = rows[order]
            self._queues.refill(waiting.requests)
            self._slots = np.concatenate((self._running.slots, waiting.slots))
        self._waiting_rows = rows.tobytes()

    def _rank_running(self, rows: NDArray[np.void], header: BoardHeader) -> None:
        running = self._running
        age = [request.num_output_tokens + request.num_output_placeholders for request in running.requests]
        running.read(rows, header, np.ones(len(age), np.bool_), np.array(age, np.int64))

    def _admit(self, header: BoardHeader, throttled: bool) -> None:
        """Preempt for those that come first, and limit admission to what the KV reserve allows."""
        queues = self._queues
        if header.preempt and self._running.requests and not throttled and queues.admits():
            self._preempt_for_slots()
            self._preempt_for_memory()
        if header.kv_reserve_tokens >= 0:
            waiting = self._waiting.requests
            starting = self._startable(max(queues.free_slots(), 0))
            allowed = decide.admission_limit(
                [queues.need_tokens(waiting[i]) for i in starting],
                queues.capacity_tokens - queues.free_tokens(),
                queues.capacity_tokens,
                header.kv_reserve_tokens,
                len(queues.running),
            )
            if allowed < len(starting):
                queues.lower_limit(len(queues.running) + allowed)

    def _preempt_for_slots(self) -> None:
        """Let waiting requests take the slots of preemptible ones with larger ranks."""
        queues, running, waiting = self._queues, self._running, self._waiting
        free = max(queues.free_slots(), 0)
        if free >= len(waiting.requests):
            return
        if not running.effective.max() > waiting.effective[free]:
            self._note_denied(free)
            return
        could = self._startable(free + len(running.requests))
        swaps = decide.slot_swaps(
            waiting.effective[could], running.effective, running.protected, running.arrival, free
        )
        room = queues.free_tokens()
        victims: list[int] = []
        for victim, newcomer in swaps:
            gives, takes = running.requests[victim], waiting.requests[could[newcomer]]
            room += queues.held_tokens(gives) - queues.need_tokens(takes)
            if room < 0 or not queues.can_give_way(gives) or not queues.lora_fits(takes):
                break
            victims.append(victim)
        self._preempt(victims)

    def _preempt_for_memory(self) -> None:
        """Let the first waiting request have the memory of preemptible ones with larger ranks.

        Only for one that vLLM itself could not place in the last step: how much it finds in the prefix cache
        is known to vLLM alone.
        """
        queues, running = self._queues, self._running
        head = self._waiting.requests[0]
        if head is not self._stuck or queues.free_slots() <= 0 or not queues.startable(head):
            return
        need, free = queues.need_tokens(head), queues.free_tokens()
        if need <= free:
            return
        victims = decide.memory_victims(
            need,
            free,
            newcomer=float(self._waiting.effective[0]),
            running=running.effective,
            running_protected=running.protected,
            held_tokens=np.array([queues.held_tokens(request) for request in running.requests], np.float64),
            most=MAX_MEMORY_VICTIMS,
        )
        if not victims:
            self._note_denied(0)
        elif all(queues.can_give_way(running.requests[i]) for i in victims):
            self._preempt(victims)

    def _startable(self, most: int) -> list[int]:
        """Indices of the first `most` waiting requests that vLLM would not skip."""
        startable = self._queues.startable
        ready = (i for i, request in enumerate(self._waiting.requests) if startable(request))
        return list(islice(ready, most))

    def _preempt(self, victims: list[int]) -> None:
        """Preempt the running requests at `victims`, and hold them back for this step."""
        if not victims:
            return
        timestamp = time.monotonic()
        for request in [self._running.requests[i] for i in victims]:
            self._queues.preempt(request, timestamp)
            self._held.append(request)
            self.policy_preemptions += 1
        self._running.keep(np.delete(np.arange(len(self._running.requests)), victims))
        self._slots = np.concatenate((self._running.slots, self._waiting.slots))

    def _note_denied(self, newcomer: int) -> None:
        """Count a waiting request, once, that only the protection of a longer one keeps waiting."""
        slot = int(self._waiting.slots[newcomer])
        if slot not in self._denied and decide.was_denied(
            float(self._waiting.effective[newcomer]), self._running.rank, self._running.protected
        ):
            self._denied.add(slot)
            self.denied += 1
