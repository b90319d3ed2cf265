"""The guard: how long the queue is, as it is observed, and what a boost and its bound are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.policy.guard import Guard, boost_scale, boosted_arrival, overtake_bound


def watch(
    guard: Guard, seconds: float, queued: float, rate: float, start: tuple[float, float]
) -> tuple[float, float]:
    """Ten observations a second; time and total at the end."""
    now, total = start
    for _ in range(round(seconds * 10)):
        now, total = now + 0.1, total + rate / 10
        guard.observe(now, queued, total)
    return now, total


@given(st.floats(1, 1e5), st.floats(1, 1e4))
def test_a_steady_queue_takes_its_tokens_by_their_rate(queued: float, rate: float) -> None:
    guard = Guard()
    watch(guard, 20, queued, rate, (50.0, 7.0))
    assert guard.wait_s == pytest.approx(queued / rate, rel=1e-6)


def test_nothing_is_known_until_a_queue_has_stood_for_a_while() -> None:
    guard = Guard(settle_s=1.0)
    at = watch(guard, 0.9, 1000.0, 100.0, (0.0, 0.0))
    assert guard.wait_s == 0.0
    watch(guard, 0.5, 1000.0, 100.0, at)
    assert guard.wait_s == pytest.approx(10.0)


def test_queues_that_come_and_go_are_none() -> None:
    guard = Guard()
    at = (0.0, 0.0)
    for _ in range(30):
        at = watch(guard, 0.5, 500.0, 20.0, at)
        at = watch(guard, 0.1, 0.0, 20.0, at)
    assert guard.wait_s == 0.0


def test_the_peak_is_held_and_decays_with_its_time_constant() -> None:
    guard = Guard(hold_s=60.0)
    at = watch(guard, 10, 6000.0, 100.0, (0.0, 0.0))
    assert guard.wait_s == pytest.approx(60.0)
    at = watch(guard, 30, 600.0, 100.0, at)
    assert guard.wait_s == pytest.approx(60.0 * math.exp(-0.5), rel=1e-3)
    watch(guard, 600, 600.0, 100.0, at)
    assert guard.wait_s == pytest.approx(6.0)


def test_quiet_time_says_nothing_of_the_rate_under_a_queue() -> None:
    guard = Guard()
    at = watch(guard, 300, 0.0, 3.0, (0.0, 0.0))  # one request at a time
    watch(guard, 5, 4000.0, 1000.0, at)
    assert guard.wait_s == pytest.approx(4.0, rel=0.05)


def test_a_total_that_begins_anew_and_time_that_stands_still_do_no_harm() -> None:
    guard = Guard()
    watch(guard, 5, 1000.0, 100.0, (0.0, 10_000.0))
    before = guard.wait_s
    guard.observe(5.0, 1000.0, 0.0)
    guard.observe(5.0, 1000.0, 0.0)
    assert guard.wait_s == before
    watch(guard, 5, 1000.0, 100.0, (5.0, 0.0))
    assert guard.wait_s == pytest.approx(10.0)


@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1e7), st.floats(-1e3, 1e6)), min_size=1, max_size=40)
)
def test_whatever_is_observed_the_estimate_is_a_number(looks: list[tuple[float, float, float]]) -> None:
    guard, now, total = Guard(), 0.0, 0.0
    for passed, queued, made in looks:
        now, total = now + passed, total + made
        assert 0.0 <= guard.observe(now, queued, total) < math.inf


@given(st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e4), st.floats(0, 100), st.floats(0, 1e4))
def test_a_boost_lies_between_nothing_and_the_bound(
    size: float, arrival: float, wait: float, kappa: float, mean: float
) -> None:
    scale = boost_scale(mean)
    rank = float(boosted_arrival([size], [arrival], wait, kappa, scale)[0])
    assert arrival - overtake_bound(kappa, wait, scale) - 1e-6 <= rank <= arrival


def test_the_formula_on_a_worked_example() -> None:
    # T = 2 x 10 s, R = 100 tokens: 20 ln(1 - exp(-1/2)) = -18.66 and 20 ln(1 - exp(-5)) = -0.135.
    ranks = boosted_arrival([50.0, 500.0], [100.0, 100.0], 10.0, 2.0, 100.0)
    assert ranks == pytest.approx([81.345, 99.865], abs=1e-3)
    assert overtake_bound(2.0, 10.0, 100.0) == pytest.approx(20 * 4.6102, abs=1e-3)
    assert overtake_bound(math.inf, 0.0, 100.0) == math.inf
    assert overtake_bound(0.0, 10.0, 100.0) == 0.0
