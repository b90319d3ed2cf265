"""Who is served next, who gives way, how many are admitted: pure decisions over arrays.

The scheduler, the Rank call and the simulator use these same functions. Ranks are tokens, smaller is
served first; ages are generated tokens. A *protected* request was admitted at least once and has
reached its cut-off age: it comes first, and no other request takes its place (TRAIL, section 4).
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


def is_protected(admitted: Bools, age: Ints, cutoff: Ints) -> Bools:
    """Which requests `[n]` are protected. One that was never admitted is not, whatever its cut-off."""
    return admitted & (age >= cutoff)


def effective_rank(rank: Floats, protected: Bools) -> NDArray[np.float64]:
    """Ranks `[n]` with minus infinity for protected requests."""
    return np.where(protected, -np.inf, rank)


def serving_order(effective: Floats, arrival: NDArray[np.generic]) -> NDArray[np.intp]:
    """Indices `[n]`, first served first: by effective rank, then by arrival, then as given. NaN comes last.

    Python's sort and not NumPy's, which gives up the interpreter: in the engine core, vLLM's output thread
    would then do its work before the step's instead of beside it.

    For the running requests the same order puts the one to lose its memory first at the end, where
    vLLM takes it from (`running[-1]`).
    """
    keys = zip(
        np.isnan(effective).tolist(),
        np.nan_to_num(effective, nan=0.0, posinf=np.inf, neginf=-np.inf).tolist(),
        arrival.tolist(),
        range(len(effective)),
        strict=True,
    )
    return np.array([place for *_, place in sorted(keys)], np.intp)


def slot_swaps(
    waiting: Floats,
    running: Floats,
    running_protected: Bools,
    running_arrival: NDArray[np.generic],
    free: int,
) -> list[tuple[int, int]]:
    """Pairs (victim, newcomer), indices into `running` and `waiting`, when slots are short.

    `waiting` holds effective ranks in serving order of those that could start at once; the first `free`
    of them find a slot. Every further one takes the slot of the preemptible request with the largest
    rank, if that rank is strictly larger than its own; of equal ranks the later arrival gives way.
    """
    newcomers = waiting[max(free, 0) :]
    candidates = np.flatnonzero(~running_protected)
    if not len(newcomers) or not len(candidates):
        return []
    ranks = running[candidates]
    if not ranks.max() > newcomers[0]:
        return []
    swaps: list[tuple[int, int]] = []
    by_rank = candidates[serving_order(ranks, running_arrival[candidates])][::-1]
    for offset, (victim, own) in enumerate(zip(by_rank.tolist(), newcomers.tolist(), strict=False)):
        if not running[victim] > own:
            break
        swaps.append((victim, max(free, 0) + offset))
    return swaps


def memory_victims(
    need_tokens: float,
    free_tokens: float,
    *,
    newcomer: float,
    running: Floats,
    running_protected: Bools,
    held_tokens: Floats,
    most: int,
) -> list[int]:
    """Indices of running requests that give way so that `newcomer` (its effective rank) fits in memory.

    Largest rank first, each strictly larger than the newcomer's, at most `most` of them. Empty when the
    newcomer fits already, or when all that may give way would not make room: a preemption that admits
    nobody only costs recomputation.
    """
    missing = need_tokens - free_tokens
    if missing <= 0:
        return []
    candidates = np.flatnonzero(~running_protected & (running > newcomer))
    by_rank = candidates[np.argsort(running[candidates], kind="stable")][::-1]
    victims: list[int] = []
    for victim in by_rank.tolist()[:most]:
        victims.append(victim)
        missing -= float(held_tokens[victim])
        if missing <= 0:
            return victims
    return []


def was_denied(newcomer: float, running_rank: Floats, running_protected: Bools) -> bool:
    """Whether protection alone keeps the newcomer waiting: a longer request runs, and is protected.

    `running_rank` are ranks before protection.
    """
    return bool((running_protected & (running_rank > newcomer)).any())


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
