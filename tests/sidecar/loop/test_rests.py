"""How long the loop pauses, and when a thread offers its core."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.sidecar.loop.rests import Rests, YieldCore
from trail.sidecar.pacing import PROFILES, SHARED_CORES, Pacing

TIMES = st.floats(0, 1)
PACINGS = st.sampled_from(list(PROFILES.values()))


@given(PACINGS, st.lists(st.tuples(st.booleans(), TIMES, TIMES), max_size=40))
def test_pauses_keep_their_bounds(pacing: Pacing, rounds: list[tuple[bool, float, float]]) -> None:
    rests = Rests(pacing)
    longest_s = max(pacing.loop_rest_most_s, pacing.loop_rest_crowded_most_s)
    for busy, cpu_s, waited_s in rounds:
        pause_s = rests.after(busy, cpu_s, cpu_s + waited_s)
        assert pacing.loop_rest_least_s <= pause_s <= (longest_s if busy else pacing.loop_look_most_s)
        if busy:
            assert pause_s <= max(pacing.loop_rest * cpu_s, pacing.loop_rest_least_s)


def test_a_free_core_is_used_more_than_a_crowded_one() -> None:
    free, crowded = Rests(SHARED_CORES), Rests(SHARED_CORES)
    for _ in range(200):
        of_free = free.after(True, 5e-3, 5e-3)
        of_crowded = crowded.after(True, 5e-3, 9e-3)
    assert of_free == SHARED_CORES.loop_rest_most_s
    assert of_crowded == pytest.approx(SHARED_CORES.loop_rest_crowded_most_s)
    assert crowded.after(True, 1e-3, 2e-3) == pytest.approx(SHARED_CORES.loop_rest * 1e-3)


def test_rounds_without_work_come_soon_and_then_seldom() -> None:
    rests = Rests(SHARED_CORES)
    pauses = [rests.after(False, 0.0, 0.0) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == SHARED_CORES.loop_look_most_s
    rests.after(True, 1e-6, 1e-6)
    assert rests.after(False, 0.0, 0.0) < 2 * SHARED_CORES.loop_rest_least_s


def test_a_core_that_comes_back_late_is_not_offered_for_a_while() -> None:
    now_ns, away_ns, offers = 0, 1000, 0
    late_ns, again_ns = (int(s * 1e9) for s in (SHARED_CORES.yield_late_s, SHARED_CORES.yield_again_s))

    def offer() -> None:
        nonlocal now_ns, offers
        now_ns += away_ns
        offers += 1

    yield_core = YieldCore(SHARED_CORES, offer, lambda: now_ns)
    for _ in range(3):
        yield_core()
    assert offers == 3
    away_ns = late_ns + 1
    yield_core()
    assert offers == 4
    back_ns = now_ns
    yield_core()
    now_ns = back_ns + again_ns - 1
    yield_core()
    assert offers == 4
    now_ns = back_ns + again_ns
    yield_core()
    assert offers == 5
