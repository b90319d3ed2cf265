"""The core is offered between pieces of work, and not for a while after it came back late."""

from trail.sidecar.loop.yield_core import BACKOFF_NS, LATE_NS, Courtesy


def test_a_core_that_comes_back_late_is_not_offered_for_a_while() -> None:
    now_ns, away_ns, offers = 0, 1000, 0

    def offer() -> None:
        nonlocal now_ns, offers
        now_ns += away_ns
        offers += 1

    courtesy = Courtesy(offer, lambda: now_ns)
    for _ in range(3):
        courtesy.give_way()
    assert offers == 3
    away_ns = LATE_NS + 1
    courtesy.give_way()
    assert offers == 4
    back_ns = now_ns
    courtesy.give_way()
    now_ns = back_ns + BACKOFF_NS - 1
    courtesy.give_way()
    assert offers == 4
    now_ns = back_ns + BACKOFF_NS
    courtesy.give_way()
    assert offers == 5
