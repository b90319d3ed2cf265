"""One of vLLM's queues with what the board says about its requests, as arrays."""

from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.engine.order.slots import SlotTable
from trail.policy import decide
from trail.policy.ranks import Terms, ranks
from trail.policy.sizes import cutoff_age
from trail.wire.board import BoardHeader

_request_id = attrgetter("request_id")


class Ranked:
    """One queue's requests in its order, with what the board says about them, arrays `[n]`."""

    def __init__(self, requests: list[Any], table: SlotTable) -> None:
        self._table = table
        self.requests = requests
        self.slots = np.fromiter(
            map(table.by_id.__getitem__, map(_request_id, requests)), np.int64, len(requests)
        )
        self.keys = table.key[self.slots]
        self.arrival = table.arrival[self.slots]
        self.size: NDArray[np.float64] = np.zeros(0)
        self.rank: NDArray[np.float64] = np.zeros(0)
        self.cutoff: NDArray[np.integer] = np.zeros(0, np.int64)
        self.protected: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self.effective: NDArray[np.float64] = np.zeros(0)

    def read_waiting(self, rows: NDArray[np.void], terms: Terms) -> None:
        """Ranks of requests that wait, from board `rows` and what the table holds of them."""
        table, slots = self._table, self.slots
        age = table.age[slots]
        cutoff = self._read(rows, terms, age, table.uncomputed[slots])
        self._protect(terms, decide.is_protected(table.admitted[slots], age, cutoff))

    def read_running(self, rows: NDArray[np.void], terms: Terms) -> None:
        """Ranks of requests that run, from board `rows` and vLLM's counts of their tokens."""
        requests = self.requests
        age = np.array([r.num_output_tokens + r.num_output_placeholders for r in requests], np.int64)
        left = [max(r.num_tokens - r.num_computed_tokens, 0) for r in requests] if terms.boost else []
        cutoff = self._read(rows, terms, age, np.array(left, np.int64))
        admitted, preemptions = np.ones(len(age), np.bool_), self._table.preemptions[self.slots]
        self._protect(terms, decide.is_protected(admitted, age, cutoff, preemptions, terms.max_preemptions))

    def _read(
        self, rows: NDArray[np.void], terms: Terms, age: NDArray[np.int64], uncomputed: NDArray[np.int64]
    ) -> NDArray[np.integer]:
        """Take sizes and ranks at `age`, by the mean where the board has no row of the request; cut-off ages.

        `uncomputed` is looked at where ranks are boosted.
        """
        size = decide.rank_now(rows["rank"], rows["slope"], rows["age"], age)
        cutoff: NDArray[np.integer] = rows["cutoff"]
        known = rows["key"] == self.keys
        if not known.all():
            mean = terms.mean_initial
            size = np.where(known, size, np.maximum(mean - age, 0.0))
            cutoff = np.where(known, cutoff, cutoff_age(terms.c, np.array([mean])))
        self.size = self.rank = size
        self.cutoff = cutoff
        if terms.boost:
            table, slots = self._table, self.slots
            self.rank = ranks(
                terms,
                size=size,
                arrival_s=table.arrival_s[slots],
                deadline_s=table.deadline_s[slots],
                priority=table.priority[slots],
                uncomputed_tokens=uncomputed,
            )
        return cutoff

    def _protect(self, terms: Terms, protected: NDArray[np.bool_]) -> None:
        if terms.preempt:
            self.protected = protected
            self.effective = decide.effective_rank(self.rank, protected)
        else:
            self.protected = np.zeros(len(protected), np.bool_)
            self.effective = self.rank

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
        self.size, self.rank, self.cutoff = self.size[kept], self.rank[kept], self.cutoff[kept]
        self.protected, self.effective = self.protected[kept], self.effective[kept]


def terms_of(header: BoardHeader) -> Terms:
    """What the policy says, from the board's header."""
    return Terms(
        order=header.order,
        preempt=header.preempt,
        boost=header.boost,
        c=header.c,
        mean_initial=header.mean_initial,
        kv_reserve_tokens=header.kv_reserve_tokens,
        kappa=header.kappa,
        wait_s=header.wait_s,
        token_s=header.token_s,
        preempt_ratio=header.preempt_ratio,
        max_preemptions=header.max_preemptions,
        mean_prompt=header.mean_prompt,
    )
