"""What a step needs to know of vLLM's requests, as arrays: from the board, the table and vLLM itself."""

from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.engine.order.slots import SlotTable
from trail.policy.decide import rank_now
from trail.policy.ranks import Terms
from trail.policy.step import Ranked
from trail.wire.board import BoardHeader

Slots = NDArray[np.int64]

_request_id = attrgetter("request_id")
_FEW = 1024
"""So many requests may have come or gone at an end of the queue before it is looked up anew."""


def slots_of(table: SlotTable, requests: list[Any]) -> Slots:
    """Board slots of open `requests` `[n]`."""
    ids = map(_request_id, requests)
    return np.fromiter(map(table.by_id.__getitem__, ids), np.int64, len(requests))


def follow(table: SlotTable, before: list[Any], slots: Slots, now: list[Any]) -> Slots:
    """`slots_of` the queue `now`, which had the `slots` when it was `before`.

    From one step to the next a long queue loses its first ones, is joined by some in front, and by others at
    the end: those between are as they were, and are not looked up again.
    """
    if before and now:
        last, stays = before[-1], len(now)
        for joined in range(min(len(now), _FEW)):
            if now[-1 - joined] is last:
                stays = len(now) - joined
                break
        for first in range(min(stays, _FEW)):
            length = stays - first
            if length <= len(before) and now[first] is before[-length]:
                if now[first:stays] != before[-length:]:
                    break
                ends = slots_of(table, now[:first]), slots_of(table, now[stays:])
                return np.concatenate((ends[0], slots[-length:], ends[1]))
    return slots_of(table, now)


def rank_waiting(table: SlotTable, slots: Slots, rows: NDArray[np.void], terms: Terms) -> Ranked:
    """Ranks of requests that wait, from board `rows` and what the table holds of them."""
    return _ranked(
        table,
        slots,
        rows,
        terms,
        age=table.age.take(slots),
        admitted=table.admitted.take(slots),
        preemptions=None,
        uncomputed=table.uncomputed.take(slots),
    )


def rank_running(
    table: SlotTable, slots: Slots, rows: NDArray[np.void], terms: Terms, requests: list[Any]
) -> Ranked:
    """Ranks of requests that run, from board `rows` and vLLM's counts of their tokens."""
    left = [max(r.num_tokens - r.num_computed_tokens, 0) for r in requests] if terms.boost else []
    return _ranked(
        table,
        slots,
        rows,
        terms,
        age=np.array([r.num_output_tokens + r.num_output_placeholders for r in requests], np.int64),
        admitted=np.ones(len(requests), np.bool_),
        preemptions=table.preemptions.take(slots),
        uncomputed=np.array(left, np.int64),
    )


def _ranked(
    table: SlotTable,
    slots: Slots,
    rows: NDArray[np.void],
    terms: Terms,
    *,
    age: NDArray[np.int64],
    admitted: NDArray[np.bool_],
    preemptions: NDArray[np.int64] | None,
    uncomputed: NDArray[np.int64],
) -> Ranked:
    boosted = slots if terms.boost else slots[:0]
    return Ranked.of(
        terms,
        size=rank_now(rows["rank"], rows["slope"], rows["age"], age),
        cutoff=rows["cutoff"],
        known=rows["key"] == table.key.take(slots),
        age=age,
        admitted=admitted,
        preemptions=preemptions,
        arrival_s=table.arrival_s.take(boosted),
        deadline_s=table.deadline_s.take(boosted),
        priority=table.priority.take(boosted),
        uncomputed_tokens=uncomputed,
    )


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
