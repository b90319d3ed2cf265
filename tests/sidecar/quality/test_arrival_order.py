"""Ends come in any order and are given in the order of arrival."""

from hypothesis import given
from hypothesis import strategies as st

from trail.sidecar.quality.arrival_order import ArrivalOrder


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.integers(0, 11))
def test_results_come_in_order_of_arrival(ends: list[int], silent: set[int], lost: int) -> None:
    """`silent` ones end without a result; the end of `lost` never comes and is known by `is_open` alone."""
    open_keys: set[int] = set()
    order: ArrivalOrder[int] = ArrivalOrder(open_keys.__contains__)
    for key in range(12):
        open_keys.add(key)
        order.arrive(key)
    open_keys.discard(lost)
    given_out: list[int] = []
    ended: set[int] = set()
    for key in ends:
        if key == lost:
            continue
        given_out += order.end(key, None if key in silent else key)
        open_keys.discard(key)
        ended.add(key)
        first_open = min(set(range(12)) - ended - {lost}, default=12)
        assert given_out == [k for k in range(first_open) if k not in silent and k != lost]


def test_one_that_takes_for_ever_is_passed_over_and_given_when_it_ends() -> None:
    order: ArrivalOrder[int] = ArrivalOrder(lambda key: True, most_held=3)
    for key in range(6):
        order.arrive(key)
    assert [order.end(key, key) for key in (1, 2, 3)] == [[], [], []]
    assert order.end(4, 4) == [1, 2, 3, 4]
    assert order.end(0, 0) == [0]
    assert order.end(5, 5) == [5]
