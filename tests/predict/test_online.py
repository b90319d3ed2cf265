"""The correction of posteriors by real lengths, against a slow reference written from the definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.predict.bins import Bins, equal_bins
from trail.predict.online import (
    BOUND,
    NO_CORRECTION,
    PRIOR_REQUESTS,
    PRIOR_SPREAD,
    Belief,
    Correction,
    corrected_tokens,
    fit_correction,
    fit_prompt_stretch,
    log_likelihood,
    sharpened,
)
from trail.predict.refine import Decoding, Refiner

BINS = Bins((0.0, 2.0, 3.0, 7.0, 20.0, 64.0))


def slow_cdf(p: list[float], bins: Bins, x: float) -> float:
    """F from the definition: even within a bin, exponential in the last."""
    total = 0.0
    for i, (low, high) in enumerate(zip(bins.edges, bins.edges[1:], strict=False)):
        if i == bins.k - 1:
            share = 1 - math.exp(-(x - low) / ((high - low) / 2)) if x > low else 0.0
        else:
            share = min(max((x - low) / (high - low), 0.0), 1.0)
        total += p[i] * share
    return total


def slow_objective(rows: list, bins: Bins, ln_stretch: float, ln_sharpness: float) -> float:
    m, s = math.exp(ln_stretch), math.exp(ln_sharpness)
    total = -PRIOR_REQUESTS * (ln_stretch**2 + ln_sharpness**2) / (2 * PRIOR_SPREAD**2)
    for p, remaining, ended, weight in rows:
        power = [(value + 1e-9) ** s for value in p]
        q = [value / sum(power) for value in power]
        high = slow_cdf(q, bins, (remaining + 1) / m) if ended else 1.0
        total += weight * math.log(max(high - slow_cdf(q, bins, remaining / m), 0.0) + 1e-6)
    return total


@st.composite
def beliefs(draw: st.DrawFn, least: int = 1, most: int = 12) -> tuple:
    n = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.dirichlet(np.full(BINS.k, draw(st.sampled_from([0.2, 1.0, 5.0]))), n)
    remaining = np.array(draw(st.lists(st.integers(0, 150), min_size=n, max_size=n)))
    ended = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return p, remaining, ended


@given(beliefs(), st.floats(0.5, 2.0), st.floats(0.5, 2.0))
@settings(deadline=None)
def test_likelihood_is_the_definition(drawn: tuple, stretch: float, sharpness: float) -> None:
    p, remaining, ended = drawn
    found = log_likelihood(sharpened(p, sharpness), BINS, remaining, ended, stretch)
    for i in range(len(p)):
        power = (p[i] + 1e-9) ** sharpness
        q = list(power / power.sum()) if sharpness != 1.0 else list(p[i])
        high = slow_cdf(q, BINS, (remaining[i] + 1) / stretch) if ended[i] else 1.0
        expected = math.log(max(high - slow_cdf(q, BINS, remaining[i] / stretch), 0.0) + 1e-6)
        assert found[i] == pytest.approx(expected, abs=1e-6)


@given(beliefs(), st.floats(0.5, 2.0))
@settings(deadline=None)
def test_the_law_has_all_its_mass(drawn: tuple, stretch: float) -> None:
    p, _, _ = drawn
    belief = Belief(p, BINS)
    values = [belief.cdf(np.full(len(p), n / stretch)) for n in range(0, 3000, 50)]
    assert np.all(np.diff(values, axis=0) >= -1e-12)
    assert values[0] == pytest.approx(0.0, abs=1e-12)
    assert values[-1] == pytest.approx(1.0, abs=1e-6)


@given(beliefs(least=3), st.floats(0.0, 100.0))
@settings(deadline=None, max_examples=25)
def test_the_fit_is_as_good_as_a_fine_grid(drawn: tuple, weight: float) -> None:
    """The likelihood has kinks at bin edges, so a search may end in a lesser peak: by little here."""
    p, remaining, ended = drawn
    weights = np.full(len(p), weight)
    found = fit_correction(p, BINS, remaining, ended, weights)
    rows = list(zip(p.tolist(), remaining.tolist(), ended.tolist(), weights.tolist(), strict=True))
    axis = np.linspace(-math.log(BOUND), math.log(BOUND), 15)
    best = max(slow_objective(rows, BINS, a, b) for a in axis for b in axis)
    own = slow_objective(rows, BINS, math.log(found.stretch), math.log(found.sharpness))
    nothing = slow_objective(rows, BINS, 0.0, 0.0)
    assert own >= nothing - 1e-9
    assert best - own <= 0.15 * (best - nothing) + 0.5


@given(beliefs(), st.floats(0.0, 1e6))
@settings(deadline=None)
def test_corrections_stay_within_their_bounds(drawn: tuple, weight: float) -> None:
    found = fit_correction(*drawn[:1], BINS, *drawn[1:], np.full(len(drawn[0]), weight))
    for value in (found.stretch, found.sharpness):
        assert 1 / BOUND - 1e-6 <= value <= BOUND + 1e-6


@pytest.mark.parametrize("stretch", [0.7, 1.0, 1.6])
def test_a_stretch_of_the_world_is_found(stretch: float) -> None:
    rng = np.random.default_rng(3)
    bins = equal_bins(32, 320.0)
    centre = rng.uniform(40.0, 200.0, 1500)
    p = np.exp(-0.5 * ((bins.midpoints - centre[:, None]) / (0.25 * centre[:, None])) ** 2)
    p /= p.sum(axis=1, keepdims=True)
    truth = np.maximum(stretch * centre * (1 + 0.25 * rng.standard_normal(1500)), 1).astype(int)
    found = fit_correction(p, bins, truth, np.ones(1500, bool), np.ones(1500))
    assert found.stretch == pytest.approx(stretch, rel=0.05)
    assert found.sharpness == pytest.approx(1.0, rel=0.15)


def test_cut_answers_say_that_they_are_longer() -> None:
    """All answers cut at 20 where 5 was believed: leaving them out would leave nothing to learn from."""
    p = np.tile([0.0, 0.0, 1.0, 0.0, 0.0], (400, 1))
    found = fit_correction(p, BINS, np.full(400, 20), np.zeros(400, bool), np.ones(400))
    assert found.stretch > 1.5


def test_few_requests_change_little_and_none_change_nothing() -> None:
    p = np.tile([0.1, 0.1, 0.6, 0.1, 0.1], (5, 1))
    found = fit_correction(p, BINS, np.full(5, 12), np.ones(5, bool), np.ones(5))
    assert (found.stretch, found.sharpness) == pytest.approx((1.0, 1.0), abs=0.05)
    none = np.empty(0)
    assert fit_correction(np.empty((0, 5)), BINS, none, none.astype(bool), none) == NO_CORRECTION


def test_tokens_stretch_and_no_correction_is_the_refiner() -> None:
    refiner = Refiner(BINS, Decoding("pool", 2.0, 1.3, "median"))
    q = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    plain = refiner.tokens(q)
    assert np.array_equal(corrected_tokens(refiner, q), plain)
    assert corrected_tokens(refiner, q, Correction(stretch=1.5)) == pytest.approx(1.5 * plain)


@pytest.mark.parametrize("values", [(0.4, 1.0), (1.0, 2.1), (math.nan, 1.0)])
def test_corrections_outside_the_bounds_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        Correction(*values)


@given(st.lists(st.tuples(st.floats(1.0, 500.0), st.integers(1, 500)), min_size=1, max_size=30))
def test_the_prompts_stretch_is_the_scale_of_least_error_drawn_towards_one(
    pairs: list[tuple[float, int]],
) -> None:
    said, lengths = (np.array(column) for column in zip(*pairs, strict=True))
    found = fit_prompt_stretch(said, lengths)
    # The error is piecewise linear in the scale: its least is at one of the ratios.
    best = min(np.abs(lengths - scale * said).sum() for scale in lengths / said)
    share = len(said) / (len(said) + PRIOR_REQUESTS)
    if 1 / BOUND < found < BOUND:
        scale = found ** (1 / share)
        assert np.abs(lengths - scale * said).sum() == pytest.approx(best, abs=1e-4 * lengths.sum())
    assert 1 / BOUND - 1e-5 <= found <= BOUND + 1e-5


def test_no_prompt_predictions_no_stretch() -> None:
    assert fit_prompt_stretch(np.empty(0), np.empty(0, np.int64)) == 1.0
