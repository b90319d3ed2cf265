"""Who is served next, who gives way, how many are admitted: pure decisions over arrays.

The scheduler, the Rank call and the simulator use these same functions. Of ranks (`policy.ranks`) the
smaller is served first; sizes are predicted remaining tokens, ages generated tokens. A *protected* request
was admitted at least once and has reached its cut-off age: it comes first, and no other request takes its
place (TRAIL, section 4).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


def rank_now(rank: Floats, slope: Floats, row_age: Ints, age: Ints) -> NDArray[np.float64]:
    """Ranks `[n]` counted down from the age they were computed at to the present age, at least 0."""
    passed = age.astype(np.float64) - row_age
    return np.maximum(rank - slope * passed, 0.0)


def is_protected(
    admitted: Bools, age: Ints, cutoff: Ints, preemptions: Ints | None = None, max_preemptions: int = -1
) -> Bools:
    """Which requests `[n]` are protected. One that was never admitted is not, whatever its cut-off.

    `preemptions` `[n]` is how often each gave way to another one. Where it is given and `max_preemptions` is
    not negative, a request that did so that often is protected, too. It is given for requests that run: the
    limit spares them another time, but does not put one that waits before all others, from where it would at
    once preempt the next.
    """
    protected: Bools = admitted & (age >= cutoff)
    if preemptions is not None and max_preemptions >= 0:
        protected = protected | (admitted & (preemptions >= max_preemptions))
    return protected


def effective_rank(rank: Floats, protected: Bools) -> NDArray[np.float64]:
    """Ranks `[n]` with minus infinity for protected requests."""
    return np.where(protected, -np.inf, rank)


def serving_order(
    effective: Floats, arrival: NDArray[np.generic], most: int | None = None
) -> NDArray[np.intp]:
    """Indices `[n]`, first served first: by effective rank, then by arrival, then as given. NaN comes last.

    With `most` only the first so many, without putting the others in order: O(n + most log most).

    Python's sort and not NumPy's, which gives up the interpreter: in the engine core, vLLM's output thread
    would then do its work before the step's instead of beside it.

    For the running requests the same order puts the one to lose its memory first at the end, where
    vLLM takes it from (`running[-1]`).
    """
    if most is not None and most < len(effective):
        chosen = _first(effective, arrival, most)
        return chosen[serving_order(effective[chosen], arrival[chosen])][:most]
    order = sorted(range(len(effective)), key=arrival.tolist().__getitem__)
    nan = np.isnan(effective)
    if not nan.any():
        order.sort(key=effective.tolist().__getitem__)
    else:
        order.sort(key=np.where(nan, np.inf, effective).tolist().__getitem__)
        order.sort(key=nan.tolist().__getitem__)
    return np.array(order, np.intp)


def _first(effective: Floats, arrival: NDArray[np.generic], most: int) -> NDArray[np.intp]:
    """Indices of the `most` that are served first, ascending where neither rank nor arrival differs."""
    if most <= 0:
        return np.zeros(0, np.intp)
    last = np.partition(effective, most - 1)[most - 1]
    if np.isnan(last):  # rubbish from the board: there are fewer numbers than that
        return np.arange(len(effective))
    before, level = np.flatnonzero(effective < last), np.flatnonzero(effective == last)
    lacking = most - len(before)
    came = arrival[level]
    latest = np.partition(came, lacking - 1)[lacking - 1]
    level = np.concatenate((level[came < latest], level[came == latest]))[:lacking]
    return np.concatenate((before, level))


def slot_swaps(
    waiting: Floats,
    running: Floats,
    running_protected: Bools,
    running_arrival: NDArray[np.generic],
    free: int,
    *,
    waiting_size: Floats | None = None,
    running_size: Floats | None = None,
    ratio: float = 1.0,
) -> list[tuple[int, int]]:
    """Pairs (victim, newcomer), indices into `running` and `waiting`, when slots are short.

    `waiting` holds effective ranks in serving order of those that could start at once; the first `free`
    of them find a slot. Every further one takes the slot of the preemptible request with the largest
    rank, if that rank is strictly larger than its own; of equal ranks the later arrival gives way. Where
    sizes are given, only requests whose size is at least `ratio` times the newcomer's give way, unless the
    newcomer is protected. The first newcomer that finds nobody ends the search: a slot would be its own.
    """
    newcomers = waiting[max(free, 0) :]
    candidates = np.flatnonzero(~running_protected)
    if not len(newcomers) or not len(candidates):
        return []
    ranks = running[candidates]
    if not ranks.max() > newcomers[0]:
        return []
    swaps: list[tuple[int, int]] = []
    left = candidates[serving_order(ranks, running_arrival[candidates])][::-1].tolist()
    for newcomer, own in enumerate(newcomers.tolist(), start=max(free, 0)):
        least = _least_size(own, waiting_size[newcomer] if waiting_size is not None else 0.0, ratio)
        place = _first_to_give_way(left, own, least, running, running_size)
        if place is None:
            break
        swaps.append((left.pop(place), newcomer))
    return swaps


def _least_size(rank: float, size: float, ratio: float) -> float:
    """Size in tokens from which a running request gives way to a newcomer; a protected one asks for none."""
    return -np.inf if rank == -np.inf else ratio * float(size)


def _first_to_give_way(
    candidates: list[int], rank: float, least: float, running: Floats, running_size: Floats | None
) -> int | None:
    """Place in `candidates`, largest rank first, of the first that gives way to a newcomer of this `rank`."""
    for place, victim in enumerate(candidates):
        if not running[victim] > rank:
            return None
        if running_size is None or running_size[victim] >= least:
            return place
    return None


def memory_victims(
    need_tokens: float,
    free_tokens: float,
    *,
    newcomer: float,
    running: Floats,
    running_protected: Bools,
    running_arrival: NDArray[np.generic],
    held_tokens: Floats,
    most: int,
    newcomer_size: float = 0.0,
    running_size: Floats | None = None,
    ratio: float = 1.0,
) -> list[int]:
    """Indices of running requests that give way so that `newcomer` (its effective rank) fits in memory.

    Largest rank first, each strictly larger than the newcomer's, of equal ranks the later arrival, at most
    `most` of them. Empty when the newcomer fits already, or when all that may give way would not make room: a
    preemption that admits nobody only costs recomputation. Sizes and `ratio` as in `slot_swaps`.
    """
    missing = need_tokens - free_tokens
    if missing <= 0:
        return []
    gives_way = ~running_protected & outranked(
        newcomer, running, newcomer_size=newcomer_size, running_size=running_size, ratio=ratio
    )
    candidates = np.flatnonzero(gives_way)
    by_rank = candidates[serving_order(running[candidates], running_arrival[candidates])][::-1]
    victims: list[int] = []
    for victim in by_rank.tolist()[:most]:
        victims.append(victim)
        missing -= float(held_tokens[victim])
        if missing <= 0:
            return victims
    return []


def outranked(
    newcomer: float,
    running: Floats,
    *,
    newcomer_size: float = 0.0,
    running_size: Floats | None = None,
    ratio: float = 1.0,
) -> Bools:
    """Which running requests `[n]`, of the ranks `running`, give way to `newcomer` by rank and by ratio."""
    longer: Bools = running > newcomer
    if running_size is not None:
        longer &= running_size >= _least_size(newcomer, newcomer_size, ratio)
    return longer


def admission_limit(
    need_tokens: Sequence[float] | Floats,
    used_tokens: float,
    capacity_tokens: float,
    reserve_tokens: float,
    running: int,
) -> int:
    """How many of the waiting requests, in serving order, the KV reserve lets in.

    The one that would be the (m+1)-th to run is admitted while
    `used + its need <= capacity - reserve * m`, counting those admitted before it as used. When nothing
    runs the first is always admitted, so that work never stops. A negative reserve is no limit.
    """
    needs = np.asarray(need_tokens, dtype=np.float64)
    n = len(needs)
    if reserve_tokens < 0 or n == 0:
        return n
    present = running + np.arange(n)
    fits = used_tokens + np.cumsum(needs) <= capacity_tokens - reserve_tokens * present
    admitted = n if fits.all() else int(fits.argmin())
    return admitted if running else max(admitted, 1)
