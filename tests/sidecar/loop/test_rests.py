"""How long the loop pauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.sidecar.loop.rests import FREE_LIMIT_S, IDLE_S, LEAST_S, LIMIT_S, REST, Rests

TIMES = st.floats(0, 1)


@given(st.lists(st.tuples(st.booleans(), TIMES, TIMES), max_size=40))
def test_pauses_keep_their_bounds(rounds: list[tuple[bool, float, float]]) -> None:
    rests = Rests()
    for busy, cpu_s, waited_s in rounds:
        pause_s = rests.after(busy, cpu_s, cpu_s + waited_s)
        assert LEAST_S <= pause_s <= (LIMIT_S if busy else IDLE_S)
        if busy:
            assert pause_s <= max(REST * cpu_s, LEAST_S)


def test_a_free_core_is_used_more_than_a_crowded_one() -> None:
    free, crowded = Rests(), Rests()
    for _ in range(200):
        of_free = free.after(True, 5e-3, 5e-3)
        of_crowded = crowded.after(True, 5e-3, 9e-3)
    assert of_free == FREE_LIMIT_S
    assert of_crowded == pytest.approx(LIMIT_S)
    assert crowded.after(True, 1e-3, 2e-3) == pytest.approx(REST * 1e-3)


def test_rounds_without_work_come_soon_and_then_seldom() -> None:
    rests = Rests()
    pauses = [rests.after(False, 0.0, 0.0) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == IDLE_S
    rests.after(True, 1e-6, 1e-6)
    assert rests.after(False, 0.0, 0.0) < 2 * LEAST_S
