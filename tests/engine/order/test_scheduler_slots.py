"""Slots and recomputation: bookkeeping of open requests, against plain dictionaries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trail.engine.order.slots import FIRST_SIZE, PRIORITY_LIMIT, Recompute, SlotTable
from trail.wire.keys import request_key


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=80))
def test_a_request_keeps_its_slot_and_no_two_share_one(operations: list[tuple[bool, int]]) -> None:
    table, expected = SlotTable(), dict[str, int]()
    for adds, number in operations:
        request_id = f"r{number}"
        if adds:
            free = next(slot for slot in range(100) if slot not in expected.values())
            assert table.add(request_id) == expected.setdefault(request_id, free)
        else:
            assert table.remove(request_id) == expected.pop(request_id, None)
        assert table.by_id == expected
        assert sorted(table.open_slots().tolist()) == sorted(expected.values())
        assert all(int(table.key[slot]) == request_key(name) for name, slot in expected.items())


def test_the_table_grows_and_keeps_what_it_holds() -> None:
    table = SlotTable()
    for number in range(FIRST_SIZE + 1):
        table.add(f"r{number}")
    assert len(table) == FIRST_SIZE + 1
    assert table.arrival[table.open_slots()].tolist() == list(range(FIRST_SIZE + 1))
    assert len(np.unique(table.key[table.open_slots()])) == FIRST_SIZE + 1


def test_a_slot_is_clean_for_its_next_request() -> None:
    table = SlotTable()
    slot = table.add("first", arrival_s=4.0, deadline_s=9.0, priority=2, uncomputed=7)
    assert (table.arrival_s[slot], table.deadline_s[slot]) == (4.0, 9.0)
    assert (table.priority[slot], table.uncomputed[slot]) == (2, 7)
    table.age[slot], table.admitted[slot], table.initial[slot] = 9, True, 33.0
    table.preemptions[slot] = 3
    table.remove("first")
    assert table.add("second") == slot
    assert (table.age[slot], table.admitted[slot], table.initial[slot]) == (0, False, 0.0)
    assert (table.arrival_s[slot], table.deadline_s[slot]) == (0.0, np.inf)
    assert (table.priority[slot], table.uncomputed[slot], table.preemptions[slot]) == (0, 0, 0)


def test_a_priority_beyond_all_numbers_is_the_largest() -> None:
    table = SlotTable()
    slots = [table.add("a", priority=10**30), table.add("b", priority=-(10**30))]
    assert table.priority[slots].tolist() == [PRIORITY_LIMIT, -PRIORITY_LIMIT]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=40))
def test_recomputed_tokens_are_those_computed_a_second_time(steps: list[tuple[bool, int]]) -> None:
    """A request alternates between computing tokens and losing all of them."""
    recompute, again, position = Recompute(), 0, 0
    computed: set[int] = set()
    for preempted, tokens in steps:
        if preempted:
            recompute.preempted("r", position)
            position = 0
        else:
            chunk = set(range(position, position + tokens))
            again += len(chunk & computed)
            computed |= chunk
            recompute.computed("r", position, position + tokens)
            position += tokens
    assert recompute.total == again
    assert recompute.forget("r") == again
    assert recompute.forget("r") == 0


def test_what_the_prefix_cache_still_holds_is_not_counted() -> None:
    recompute = Recompute()
    recompute.preempted("r", 100)
    recompute.computed("r", 64, 101)  # 64 tokens came from the cache
    assert recompute.total == 36
