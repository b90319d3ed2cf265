"""A queue is followed and turned without being gone through."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scheduler_model import SchedulerModel, make_request

from trail.engine.order.gather import follow, slots_of
from trail.engine.order.queues import Queues
from trail.engine.order.slots import SlotTable


@given(st.integers(0, 12), st.data())
def test_those_put_first_come_in_their_order_and_the_others_stay_as_they_are(
    n: int, data: st.DataObject
) -> None:
    scheduler = SchedulerModel(1, 10)
    requests = [make_request(number, 1, 1) for number in range(n)]
    scheduler.waiting.extend(requests)
    places = data.draw(st.lists(st.integers(0, n - 1), unique=True)) if n else []
    Queues(scheduler).put_first(places)
    others = [requests[place] for place in range(n) if place not in places]
    assert list(scheduler.waiting) == [requests[place] for place in places] + others


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.integers(0, 9), unique=True))
def test_a_queue_that_is_followed_has_the_slots_that_are_looked_up(before: list[int], now: list[int]) -> None:
    table = SlotTable()
    requests: list[Any] = [SimpleNamespace(request_id=str(number)) for number in range(10)]
    for request in reversed(requests):
        table.add(request.request_id)
    old, new = [requests[i] for i in before], [requests[i] for i in now]
    followed = follow(table, old, slots_of(table, old), new)
    assert followed.tolist() == slots_of(table, new).tolist()
