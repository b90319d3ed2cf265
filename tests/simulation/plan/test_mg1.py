"""The closed form against its definition written out pair by pair, textbook formulas and exact integrals."""

import itertools
import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import kv

from trail.simulation.plan.mg1 import (
    JointLaw,
    LimitedPreemption,
    binned_law,
    exact_law,
    fcfs_times,
    joint_law,
    lognormal_law,
)

settings.register_profile("no-clock", deadline=None)
settings.load_profile("no-clock")

# Few values, so that predictions are often equal, and equal to r - a and c t.
PAIR = st.tuples(st.integers(1, 12), st.integers(0, 9), st.integers(1, 5))
PAIRS = st.lists(PAIR, min_size=1, max_size=14)
C = st.one_of(st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.8, 1.0]), st.floats(0, 1))
LOAD = st.floats(0.05, 0.97)


def law_of(pairs: list[tuple[int, int, int]]) -> JointLaw:
    size, prediction, weight = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    return joint_law(size, prediction, weight)


def slow_time(law: JointLaw, rate: float, c: float, x: float, r: float) -> float:
    """E[T(x, r)] term by term; R piece by piece between the points where rho changes."""
    rows = list(zip(law.size, law.prediction, law.weight, strict=True))

    def rho(u: float, *, strict: bool = False) -> float:
        return rate * sum(w * y for y, t, w in rows if t < u or (t == u and not strict))

    i1 = sum(w * y * y for y, t, w in rows if t <= r)
    i2 = sum(w * max(y - min(t - r, c * t), 0.0) ** 2 for y, t, w in rows if t > r)
    waiting = rate * (i1 + i2) / (2 * (1 - rho(r)) * (1 - rho(r, strict=True)))
    end = min(c * r, x)
    ages = sorted({0.0, end, *(r - t for t in law.prediction if 0 < r - t < end)})
    pieces = [(b - a) / (1 - rho(max(r - (a + b) / 2, 0.0))) for a, b in itertools.pairwise(ages)]
    return waiting + sum(pieces) + max(x - c * r, 0.0)


@given(PAIRS, C, LOAD)
def test_times_are_those_of_the_definition(pairs: list[tuple[int, int, int]], c: float, load: float) -> None:
    law = law_of(pairs)
    rate = law.rate(load)
    expected = [slow_time(law, rate, c, x, r) for x, r in zip(law.size, law.prediction, strict=True)]
    np.testing.assert_allclose(LimitedPreemption(law, c).times(rate), expected, rtol=1e-9)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), C, LOAD)
def test_many_continuous_pairs_are_served_as_the_definition_says(
    n: int, seed: int, c: float, load: float
) -> None:
    rng = np.random.default_rng(seed)
    size = rng.exponential(size=n) + 1e-3
    law = joint_law(size, size * rng.exponential(size=n), rng.random(n) + 0.01)
    rate = law.rate(load)
    times = LimitedPreemption(law, c).times(rate)
    for i in range(0, n, max(1, n // 5)):
        assert times[i] == pytest.approx(slow_time(law, rate, c, law.size[i], law.prediction[i]), rel=1e-9)


@given(PAIRS, C, LOAD, LOAD)
def test_nobody_is_served_sooner_at_a_higher_load(
    pairs: list[tuple[int, int, int]], c: float, one: float, other: float
) -> None:
    law = law_of(pairs)
    queue = LimitedPreemption(law, c)
    low, high = (queue.times(law.rate(load)) for load in sorted((one, other)))
    assert (low <= high * (1 + 1e-12)).all()
    assert (low >= law.size * (1 - 1e-12)).all()


def sprpt_time(law: JointLaw, rate: float, x: float, r: float) -> float:
    """SPRPT without a limit, predictions all different (Mitzenmacher 2020, section 5, for atoms)."""
    rows = list(zip(law.size, law.prediction, law.weight, strict=True))
    up_to = rate * sum(w * y for y, t, w in rows if t <= r)
    below = rate * sum(w * y for y, t, w in rows if t < r)
    squares = sum(w * (y * y if t <= r else max(y - (t - r), 0.0) ** 2) for y, t, w in rows)
    steps = sorted({0.0, x, *(r - t for t in law.prediction if 0 < r - t < x)} | ({r} if r < x else set()))
    inside = 0.0
    for a, b in itertools.pairwise(steps):
        rank = max(r - (a + b) / 2, 0.0)
        inside += (b - a) / (1 - rate * sum(w * y for y, t, w in rows if t < rank))
    return rate * squares / (2 * (1 - up_to) * (1 - below)) + inside


@given(
    st.lists(
        st.tuples(st.floats(0.1, 9), st.floats(0, 9)), min_size=1, max_size=12, unique_by=lambda p: p[1]
    ),
    LOAD,
    st.sampled_from([1.0, 1.5, 1e9, math.inf]),
)
def test_without_a_limit_it_is_sprpt(pairs: list[tuple[float, float]], load: float, c: float) -> None:
    law = joint_law([p[0] for p in pairs], [p[1] for p in pairs])
    rate = law.rate(load)
    expected = [sprpt_time(law, rate, x, r) for x, r in zip(law.size, law.prediction, strict=True)]
    np.testing.assert_allclose(LimitedPreemption(law, c).times(rate), expected, rtol=1e-9)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=25), LOAD)
def test_exact_predictions_without_a_limit_are_srpt(sizes: list[int], load: float) -> None:
    """Schrage and Miller's formula, with atoms: equal sizes in order of arrival."""
    law = exact_law(sizes)
    rate = law.rate(load)
    for x, got in zip(law.size, LimitedPreemption(law, 1.0).times(rate), strict=True):
        small, smaller = law.size <= x, law.size < x
        squares = law.weight[small] @ law.size[small] ** 2 + x**2 * law.weight[~small].sum()
        loads = [rate * (law.weight[s] @ law.size[s]) for s in (small, smaller)]
        edges = np.concatenate([[0.0], law.size[small]])
        inside = sum(
            (b - a) / (1 - rate * (law.weight[law.size <= a] @ law.size[law.size <= a]))
            for a, b in itertools.pairwise(edges)
        )
        assert got == pytest.approx(rate * squares / (2 * (1 - loads[0]) * (1 - loads[1])) + inside, rel=1e-9)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=25), LOAD)
def test_without_preemption_it_is_shortest_job_first(sizes: list[int], load: float) -> None:
    """The non-preemptive priority queue (Cobham 1954)."""
    law = exact_law(sizes)
    rate = law.rate(load)
    for x, got in zip(law.size, LimitedPreemption(law, 0.0).times(rate), strict=True):
        up_to, below = (rate * (law.weight[s] @ law.size[s]) for s in (law.size <= x, law.size < x))
        assert got == pytest.approx(rate * law.second_moment / (2 * (1 - up_to) * (1 - below)) + x, rel=1e-9)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=25), st.integers(0, 30), C, LOAD)
def test_one_prediction_for_all_is_first_come_first_served(
    sizes: list[int], prediction: int, c: float, load: float
) -> None:
    law = joint_law(sizes, np.full(len(sizes), prediction))
    rate = law.rate(load)
    pollaczek = rate * np.mean(np.square(sizes)) / (2 * (1 - load)) + np.asarray(sizes)
    np.testing.assert_allclose(fcfs_times(law, rate), pollaczek, rtol=1e-9)
    np.testing.assert_allclose(LimitedPreemption(law, c).times(rate), pollaczek, rtol=1e-9)


@given(PAIRS, C, LOAD, st.floats(1e-3, 1e3))
def test_another_unit_of_time_changes_nothing_else(
    pairs: list[tuple[int, int, int]], c: float, load: float, unit: float
) -> None:
    law = law_of(pairs)
    scaled = joint_law(law.size * unit, law.prediction * unit, law.weight)
    mean = law.mean(LimitedPreemption(law, c).times(law.rate(load)))
    assert scaled.mean(LimitedPreemption(scaled, c).times(scaled.rate(load))) == pytest.approx(
        unit * mean, rel=1e-6
    )


@given(PAIRS, C, LOAD, st.randoms(use_true_random=False))
def test_neither_order_nor_splitting_of_pairs_matters(
    pairs: list[tuple[int, int, int]], c: float, load: float, random: Random
) -> None:
    law = law_of(pairs)
    split = [(x, r, w) for x, r, w in pairs for _ in range(2)]
    random.shuffle(split)
    other = law_of(split)
    means = [one.mean(LimitedPreemption(one, c).times(one.rate(load))) for one in (law, other)]
    assert means[0] == pytest.approx(means[1], rel=1e-9)


# The paper's example: exponential sizes of mean 1, predictions exponential with the size as their mean.

LAMBDA = 0.7


def cells(width: float = 0.05, top: float = 26.0) -> tuple[np.ndarray, np.ndarray]:
    """The exponential distribution in cells, each at its mean."""
    edges = np.append(np.arange(0, top, width), np.inf)
    survival = np.exp(-edges)
    with np.errstate(invalid="ignore"):
        first = np.where(np.isfinite(edges), (edges + 1) * survival, 0.0)
    weight = -np.diff(survival)
    return -np.diff(first) / weight, weight


def example(width: float = 0.05) -> JointLaw:
    value, weight = cells(width)
    n = len(value)
    return joint_law(np.repeat(value, n), np.outer(value, value).ravel(), np.outer(weight, weight).ravel())


def example_rho(s: float) -> float:
    """rho(s^2): the integrals over the size are modified Bessel functions."""
    return LAMBDA * (1 - 2 * s * s * float(kv(2, 2 * s)))


def example_wait(recycled: float) -> float:
    """The mean of the first term, where I2 is `recycled` times the second moment of predictions above r."""

    def integrand(s: float) -> float:
        above = 2 * s**3 * float(kv(3, 2 * s))
        squares = 2 - above + recycled * above
        return 4 * s * float(kv(0, 2 * s)) * LAMBDA * squares / (2 * (1 - example_rho(s)) ** 2)

    return sum(quad(integrand, a, b)[0] for a, b in ((1e-9, 0.5), (0.5, 2), (2, 8), (8, 30)))


def example_residence() -> float:
    """E[R] at c = 1, on grids of its own."""
    s = np.linspace(1e-6, 25, 20_001)
    slope = 1 / (1 - LAMBDA * (1 - 2 * s * s * kv(2, 2 * s)))
    integral = np.concatenate([[0.0], np.cumsum(np.diff(s * s) * (slope[1:] + slope[:-1]) / 2)])
    sizes, masses = np.polynomial.laguerre.laggauss(100)
    factor = -np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    total = 0.0
    for x, mass in zip(sizes, masses, strict=True):
        r = x * factor
        stretched = np.interp(r, s * s, integral) - np.interp(r - np.minimum(r, x), s * s, integral)
        total += mass * float((stretched + np.maximum(x - r, 0)).mean())
    return total


def test_the_papers_example_has_its_exact_values() -> None:
    law = example()
    means = {c: law.mean(LimitedPreemption(law, c).times(LAMBDA)) for c in (0.0, 0.2, 0.8, 1.0)}
    recycled = quad(lambda u: (1 - u) ** 2 * math.exp(-u), 0, 1)[0]
    assert means[0.0] == pytest.approx(1 + example_wait(1.0), rel=1e-3)
    assert means[1.0] == pytest.approx(example_wait(recycled) + example_residence(), rel=1e-3)
    # Values noted beside the formula; the exact ones above are up to 0.5 % lower.
    for c, noted in {0.0: 2.579, 0.2: 2.433, 0.8: 2.384, 1.0: 2.379}.items():
        assert means[c] == pytest.approx(noted, rel=5e-3)


def test_equal_predictions_need_both_factors() -> None:
    """Ten equal bins over 0 to 5.12 means at load 0.9: 5.2 with both factors, above 7 with a square."""
    law = example(width=0.2)
    edges = np.linspace(0, 5.12, 11)
    bins = np.searchsorted(edges[1:-1], law.prediction, side="right")
    binned = joint_law(law.size, (edges[:-1] + edges[1:])[bins] / 2, law.weight)
    squared, both = 0.0, 0.0
    for r in np.unique(binned.prediction):
        here = binned.prediction == r
        share = binned.weight[here].sum()
        up_to, below = (
            0.9 * binned.weight @ (binned.size * chosen)
            for chosen in (binned.prediction <= r, binned.prediction < r)
        )
        # x = 0 has no residence: what is left of its time is the first term, which all of the bin share.
        first = slow_time(binned, 0.9, 0.8, 0.0, r)
        times = LimitedPreemption(binned, 0.8).times(0.9)[here]
        assert (times >= first).all()
        both += binned.weight[here] @ times
        squared += binned.weight[here] @ times + share * first * ((1 - below) / (1 - up_to) - 1)
    assert 5.1 < both < 5.3
    assert squared > 7


# What laws are made of


def test_a_lognormal_error_has_the_median_and_spread_it_says() -> None:
    law = lognormal_law([100.0], 0.6, points=64)
    assert law.mean(np.log(law.prediction / 100)) == pytest.approx(0, abs=1e-9)
    assert law.mean(np.log(law.prediction / 100) ** 2) == pytest.approx(0.36, rel=0.01)
    exact = exact_law([3.0, 3.0, 9.0])
    assert (exact.size == exact.prediction).all()
    assert exact.weight.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_classifier_says_the_midpoints_of_bins_as_often_as_it_was_seen_to() -> None:
    law = binned_law([5.0, 15.0, 400.0], [0, 10, 20], [[8, 2], [1, 3]])
    said = {
        (x, r): float(law.weight[(law.size == x) & (law.prediction == r)].sum())
        for x in (5.0, 15.0, 400.0)
        for r in (5.0, 15.0)
    }
    assert said == pytest.approx(
        {(5, 5): 0.8 / 3, (5, 15): 0.2 / 3}
        | {(x, r): share / 3 for x in (15.0, 400.0) for r, share in ((5.0, 0.25), (15.0, 0.75))}
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: joint_law([1.0], [1.0, 2.0]), "n\\] each"),
        (lambda: joint_law([0.0], [1.0]), "sizes must be finite and positive"),
        (lambda: joint_law([1.0], [-1.0]), "predictions must be finite and not negative"),
        (lambda: joint_law([1.0], [math.nan]), "predictions must be finite"),
        (lambda: joint_law([1.0], [1.0], [0.0]), "not all 0"),
        (lambda: lognormal_law([1.0], -0.1), "sigma must be at least 0"),
        (lambda: binned_law([5.0], [0, 10], [[1, 2]]), "1 x 1"),
        (lambda: binned_law([5.0], [10, 0], [[1]]), "ascending"),
        (lambda: binned_law([15.0], [0, 10, 20], [[1, 0], [0, 0]]), "row 1 of the confusion matrix is empty"),
        (lambda: exact_law([]), "n at least 1"),
        (lambda: LimitedPreemption(exact_law([1.0]), -1.0), "c is -1.0"),
        (lambda: LimitedPreemption(exact_law([1.0]), math.nan), "c is nan"),
        (lambda: LimitedPreemption(exact_law([2.0]), 1.0).times(0.5), "load is 1"),
        (lambda: fcfs_times(exact_law([2.0]), -0.5), "load is -1"),
    ],
)
def test_what_makes_no_queue_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
