"""Summaries and intervals against slow references and published values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.report.stats import (
    mean_interval,
    ratio_interval,
    saturated_capacity,
    summary,
)

positive = st.floats(1e-3, 1e3)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_percentiles_interpolate_between_order_statistics(values: list[float]) -> None:
    got = summary(values)
    assert got is not None
    ordered = sorted(values)
    for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        at = q * (len(ordered) - 1)
        low = math.floor(at)
        high = min(low + 1, len(ordered) - 1)
        want = ordered[low] + (at - low) * (ordered[high] - ordered[low])
        assert got[name] == pytest.approx(want, rel=1e-9, abs=1e-9)
    assert got["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-9)


def test_no_values_have_no_summary() -> None:
    assert summary([]) is None


def test_mean_interval_by_hand() -> None:
    got = mean_interval([1.0, 2.0, 3.0])
    half = 4.30265 * 1.0 / math.sqrt(3)
    assert got.value == 2.0
    assert (got.low, got.high) == (pytest.approx(2 - half, abs=1e-4), pytest.approx(2 + half, abs=1e-4))


def test_one_repeat_gives_a_value_and_no_interval() -> None:
    got = mean_interval([5.0])
    assert (got.value, got.low, got.high) == (5.0, None, None)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        got = mean_interval(rng.normal(10, 3, size=4))
        assert got.low is not None
        assert got.high is not None
        covered += got.low <= 10 <= got.high
    assert 0.93 < covered / 2000 < 0.97


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8))
def test_a_ratio_and_its_inverse_have_inverse_intervals(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = ratio_interval(a, b), ratio_interval(b, a)
    assert there.value * back.value == pytest.approx(1, rel=1e-6)
    assert there.low is not None
    assert there.high is not None
    assert back.high is not None
    assert math.log(there.low) == pytest.approx(-math.log(back.high), rel=1e-6, abs=1e-6)


@given(st.lists(positive, min_size=2, max_size=8), st.floats(0.1, 10))
def test_pairing_removes_what_a_repeat_does_to_both_arms(theirs: list[float], factor: float) -> None:
    got = ratio_interval([factor * v for v in theirs], theirs)
    assert got.value == pytest.approx(factor, rel=1e-9)
    assert (got.low, got.high) == (pytest.approx(factor, rel=1e-6), pytest.approx(factor, rel=1e-6))


@given(st.integers(2, 16), st.integers(30, 200), st.integers(0, 2**31))
def test_capacity_of_a_simulated_engine_is_slots_over_mean_length(slots: int, n: int, seed: int) -> None:
    """An engine of `slots` slots that makes one token a slot and second sustains `slots / mean length`."""
    lengths = np.random.default_rng(seed).integers(5, 60, size=n + 4 * slots)
    free_at = [0.0] * slots
    first, times = [], []
    for length in lengths:
        slot = int(np.argmin(free_at))
        start = free_at[slot]
        first.append(start + 1)
        times.extend(start + 1 + np.arange(length))
        free_at[slot] = start + length
    got = saturated_capacity(np.asarray(times), np.ones(len(times)), np.asarray(first), lengths.astype(float))
    assert got.tokens_per_s == pytest.approx(slots, rel=0.05)
    assert got.requests_per_s == pytest.approx(slots / lengths.mean(), rel=0.05)


def test_an_engine_that_never_queues_has_no_measured_capacity() -> None:
    with pytest.raises(ValueError, match="never saturated"):
        saturated_capacity(np.asarray([1.0, 2.0]), np.ones(2), np.asarray([1.0, 1.0]), np.asarray([1.0, 1.0]))


def test_tokens_that_arrive_in_bulk_after_a_silence_do_not_make_the_engine_fast() -> None:
    """A stalled client reads 8 s of work at once: the capacity is work over 8 s, not over its reading."""
    times = np.linspace(8.0, 8.02, 400)
    first = np.linspace(8.0, 8.01, 40)
    got = saturated_capacity(times, np.full(400, 10.0), first, np.full(40, 100.0))
    assert 0.4 * 500 < got.tokens_per_s < 500
