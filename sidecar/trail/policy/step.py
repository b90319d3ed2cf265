"""One scheduling step as a plan: who comes first, who gives way for whom, how many are let in.

The engine (`trail.engine.order`) and the simulator (`trail.simulation.engine.ranked`) gather these arrays,
call `plan_step` and carry the plan out. Tokens of KV cache are counted in whole blocks.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trail.policy import decide
from trail.policy.decide import Bools, Ints
from trail.policy.ranks import Terms, ranks
from trail.policy.sizes import cutoff_age
from trail.wire.changes import Cause

Floats = NDArray[np.float64]

MAX_MEMORY_VICTIMS = 4
"""Requests preempted in one step, at most, to make room for the head of the queue."""
LEAST_ORDERED = 64
"""So many of those that wait are put in order, at least."""


@dataclass(frozen=True)
class Ranked:
    """Sizes at the present age and ranks, `[n]` each. `spared` are protected before their cut-off age: they
    gave way as often as one may."""

    size: Floats
    rank: Floats
    protected: Bools
    spared: Bools
    effective: Floats

    @classmethod
    def of(
        cls,
        terms: Terms,
        *,
        size: Floats,
        cutoff: Ints,
        known: Bools,
        age: Ints,
        admitted: Bools,
        preemptions: Ints | None,
        arrival_s: Floats,
        deadline_s: Floats,
        priority: Ints,
        uncomputed_tokens: Ints,
    ) -> "Ranked":
        """Of requests given by arrays `[n]`. One that is not `known` has the mean size, whatever its own.

        `preemptions` as in `decide.is_protected`; the others as in `ranks`, which looks at them only where
        ranks are boosted.
        """
        if not known.all():
            mean = terms.mean_initial
            size = np.where(known, size, np.maximum(mean - age, 0.0))
            cutoff = np.where(known, cutoff, cutoff_age(terms.c, np.array([mean])))
        rank = ranks(
            terms,
            size=size,
            arrival_s=arrival_s,
            deadline_s=deadline_s,
            priority=priority,
            uncomputed_tokens=uncomputed_tokens,
        )
        if not terms.preempt:
            nobody = np.zeros(len(size), np.bool_)
            return cls(size, rank, nobody, nobody, rank)
        protected = decide.is_protected(admitted, age, cutoff, preemptions, terms.max_preemptions)
        return cls(size, rank, protected, protected & (age < cutoff), decide.effective_rank(rank, protected))


@dataclass(frozen=True)
class Waiting:
    """The first of those that wait, in serving order, `[n]`: as many as `reach` asks for, or all.

    `need_tokens` is what one needs to start, if nothing of it is cached; `ready`: vLLM could start it at
    once; `fits_batch`: beside those that run, as far as the limit on adapters goes.
    """

    effective: Floats
    size: Floats
    need_tokens: Floats
    ready: Bools
    fits_batch: Bools


@dataclass(frozen=True)
class Running:
    """Those that run, `[n]`. `yields`: it can be preempted now, and its memory be used at once."""

    ranked: Ranked
    arrival: NDArray[np.generic]
    held_tokens: Floats
    yields: Bools

    def __len__(self) -> int:
        return len(self.arrival)


@dataclass(frozen=True)
class Room:
    """What the engine has left. `running` counts those that hold a slot."""

    free_slots: int
    free_tokens: float
    capacity_tokens: float
    running: int

    def after(self, gone: int, freed_tokens: float) -> "Room":
        """When `gone` requests have given way, which held `freed_tokens`."""
        return Room(
            self.free_slots + gone,
            self.free_tokens + freed_tokens,
            self.capacity_tokens,
            self.running - gone,
        )


class Swap(NamedTuple):
    """The running request at `victim` gives way to the waiting one at `newcomer`: its SLOT, or its ROOM."""

    victim: int
    newcomer: int
    cause: Cause


class Denial(NamedTuple):
    """The running request at `holder` keeps its place, for `cause`, from the waiting one at `newcomer`."""

    newcomer: int
    holder: int
    cause: Cause


@dataclass
class Plan:
    """What a step changes before vLLM schedules it.

    `order` puts the running requests in serving order (None: they stay), so that vLLM takes memory from the
    last; `swaps` are preempted, which wait until the step is over; of the waiting requests that are ready
    `admitted` may start (None: all).
    """

    order: NDArray[np.intp] | None = None
    swaps: list[Swap] = field(default_factory=list)
    denials: list[Denial] = field(default_factory=list)
    admitted: int | None = None


def scarce_tokens(token_budget: int, block_tokens: int, running: int) -> int:
    """Free KV tokens below which the running requests alone could use up memory in one step.

    They take at most vLLM's token budget, and each one block more by rounding.
    """
    return token_budget + block_tokens * running


def reach(free_slots: int, running: int, terms: Terms) -> int:
    """How many requests that wait, and are ready, can be started in a step or take a slot."""
    return max(free_slots, 0) + (running if terms.preempt else 0)


def plan_step(
    waiting: Waiting,
    running: Running,
    room: Room,
    terms: Terms,
    *,
    tight: bool,
    stuck: bool,
    starting: bool = True,
) -> Plan:
    """The plan of one step; `running` is empty where nobody may be preempted.

    `tight`: memory may run out in this step. `stuck`: the first that waits did so in the last step with a
    slot free: vLLM found no memory for it. How much of it is cached is known to vLLM alone. `starting`: vLLM
    starts requests in this step; nobody gives way where it does not.
    """
    plan = Plan()
    if len(running):
        if tight:
            order = decide.serving_order(running.ranked.effective, running.arrival)
            plan.order = order if (order[1:] < order[:-1]).any() else None
        if starting and len(waiting.ready):
            _preempt_for_slots(plan, waiting, running, room, terms)
            room = _room_after(plan, running, room)
            if stuck:
                _preempt_for_memory(plan, waiting, running, room, terms)
                room = _room_after(plan, running, room, Cause.ROOM)
    plan.admitted = admitted(waiting.need_tokens[waiting.ready], room, terms.kv_reserve_tokens)
    return plan


def admitted(need_tokens: Floats, room: Room, reserve_tokens: float) -> int | None:
    """How many of those that are ready, in serving order, the KV reserve lets in; None where it keeps out
    nobody whom a slot is free for."""
    if reserve_tokens < 0:
        return None
    needs = need_tokens[: max(room.free_slots, 0)]
    used_tokens = room.capacity_tokens - room.free_tokens
    allowed = decide.admission_limit(needs, used_tokens, room.capacity_tokens, reserve_tokens, room.running)
    return allowed if allowed < len(needs) else None


def _room_after(plan: Plan, running: Running, room: Room, cause: Cause = Cause.SLOT) -> Room:
    victims = [swap.victim for swap in plan.swaps if swap.cause is cause]
    return room.after(len(victims), float(running.held_tokens[victims].sum())) if victims else room


def _preempt_for_slots(plan: Plan, waiting: Waiting, running: Running, room: Room, terms: Terms) -> None:
    """Let waiting requests take the slots of preemptible ones with larger ranks.

    Nobody gives way for one that the KV reserve would then keep out.
    """
    free, ranked = max(room.free_slots, 0), running.ranked
    could = np.flatnonzero(waiting.ready)[: free + len(running)]
    if len(could) <= free:
        return
    first = int(could[free])
    if not ranked.effective.max() > waiting.effective[first]:
        plan.denials += _by_protection(first, waiting, ranked, terms)
        return
    swaps = decide.slot_swaps(
        waiting.effective[could],
        ranked.effective,
        ranked.protected,
        running.arrival,
        free,
        waiting_size=waiting.size[could],
        running_size=ranked.size,
        ratio=terms.preempt_ratio,
    )
    if not swaps:
        plan.denials += _by_the_longest(first, waiting, ranked, Cause.RATIO)
    left = room.free_tokens - max(terms.kv_reserve_tokens, 0.0) * (room.running - 1)
    for victim, place in swaps:
        newcomer = int(could[place])
        left += float(running.held_tokens[victim] - waiting.need_tokens[newcomer])
        obstacle = (
            Cause.MEMORY
            if left < 0
            else Cause.BUSY
            if not running.yields[victim]
            else Cause.ADAPTER
            if not waiting.fits_batch[newcomer]
            else None
        )
        if obstacle is not None:
            plan.denials.append(Denial(newcomer, victim, obstacle))
            break
        plan.swaps.append(Swap(victim, newcomer, Cause.SLOT))


def _preempt_for_memory(plan: Plan, waiting: Waiting, running: Running, room: Room, terms: Terms) -> None:
    """Let the first waiting request have the memory of preemptible ones with larger ranks."""
    if room.free_slots <= 0 or not waiting.ready[0]:
        return
    reserve = max(terms.kv_reserve_tokens, 0.0)  # which a victim gives back with its memory
    need = float(waiting.need_tokens[0]) + reserve * room.running
    if need <= room.free_tokens:
        return
    here = np.delete(np.arange(len(running)), [swap.victim for swap in plan.swaps])
    ranked = running.ranked
    ranked = Ranked(
        ranked.size[here], ranked.rank[here], ranked.protected[here], ranked.spared[here],
        ranked.effective[here],
    )  # fmt: skip
    victims = decide.memory_victims(
        need,
        room.free_tokens,
        newcomer=float(waiting.effective[0]),
        running=ranked.effective,
        running_protected=ranked.protected,
        running_arrival=running.arrival[here],
        held_tokens=running.held_tokens[here] + reserve,
        most=MAX_MEMORY_VICTIMS,
        newcomer_size=float(waiting.size[0]),
        running_size=ranked.size,
        ratio=terms.preempt_ratio,
    )
    if not victims:
        denials = _by_protection(0, waiting, ranked, terms)
        if not denials:
            enough = bool(_outranked(0, waiting, ranked.effective, ranked, terms).any())
            denials = _by_the_longest(0, waiting, ranked, Cause.MEMORY if enough else Cause.RATIO)
        plan.denials += [Denial(0, int(here[holder]), cause) for _, holder, cause in denials]
        return
    found = here[victims].tolist()
    busy = next((victim for victim in found if not running.yields[victim]), None)
    if busy is not None:
        plan.denials.append(Denial(0, busy, Cause.BUSY))
    else:
        plan.swaps += [Swap(victim, 0, Cause.ROOM) for victim in found]


def _by_protection(newcomer: int, waiting: Waiting, running: Ranked, terms: Terms) -> list[Denial]:
    """That a longer request keeps its place from the newcomer only as it is protected, where that is so."""
    kept = np.flatnonzero(running.protected & _outranked(newcomer, waiting, running.rank, running, terms))
    if not len(kept):
        return []
    holder = int(kept[running.rank[kept].argmax()])
    return [Denial(newcomer, holder, Cause.LIMIT if running.spared[holder] else Cause.PROTECTED)]


def _by_the_longest(newcomer: int, waiting: Waiting, running: Ranked, cause: Cause) -> list[Denial]:
    """That the longest unprotected request keeps its place, where it is longer than the newcomer."""
    if not len(running.effective):
        return []
    holder = int(running.effective.argmax())
    longer = running.effective[holder] > waiting.effective[newcomer]
    return [Denial(newcomer, holder, cause)] if longer else []


def _outranked(newcomer: int, waiting: Waiting, ranks: Floats, running: Ranked, terms: Terms) -> Bools:
    return decide.outranked(
        float(waiting.effective[newcomer]),
        ranks,
        newcomer_size=float(waiting.size[newcomer]),
        running_size=running.size,
        ratio=terms.preempt_ratio,
    )
