"""The floor: which steps are drawn, and an estimate that the number of continuations does not move."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.predict.bins import Bins
from trail.training.evaluate.arms import conditioned
from trail.training.evaluate.floor import choose_steps, estimate, spread


@given(st.lists(st.integers(0, 500), min_size=2, max_size=30))
def test_spread_is_each_value_from_the_median_of_the_others(values: list[int]) -> None:
    slow = [abs(v - np.median(values[:i] + values[i + 1 :])) for i, v in enumerate(values)]
    assert spread(np.array(values, dtype=float)) == pytest.approx(np.mean(slow))


@pytest.mark.parametrize("continuations", [8, 12, 24])
def test_the_estimate_is_that_of_endless_continuations(continuations: int) -> None:
    """Exponential lengths of mean 60: the best guess is 60 ln 2, its mean absolute error 60 ln 2."""
    rng = np.random.default_rng(continuations)
    floor = estimate([rng.exponential(60, continuations) for _ in range(20_000)])
    assert floor.mae == pytest.approx(60 * np.log(2), rel=0.015)
    assert floor.mae_low < floor.mae < floor.mae_high
    assert (floor.steps, floor.continuations, floor.left_out) == (20_000, continuations, 0)


def test_steps_with_few_continuations_are_left_out_and_counted() -> None:
    floor = estimate([np.arange(10), np.arange(3), np.arange(9)])
    assert (floor.steps, floor.left_out) == (2, 1)
    with pytest.raises(ValueError, match="draw more"):
        estimate([np.arange(10), np.arange(3)])


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Steps of mean 5 to 115 in the order of a systematic sample: about 95 % of 200 intervals."""
    rng = np.random.default_rng(7)
    means = np.linspace(5, 115, 300)
    systematic = [estimate([rng.exponential(mean, 12) for mean in means]) for _ in range(200)]
    truth = 60 * np.log(2)
    assert 0.90 <= np.mean([f.mae_low <= truth <= f.mae_high for f in systematic]) <= 0.99
    # In any other order it also answers for which steps were drawn, and is wider.
    mixed = [estimate([rng.exponential(mean, 12) for mean in rng.permutation(means)]) for _ in range(20)]
    width = np.mean([f.mae_high - f.mae_low for f in systematic])
    assert width < np.mean([f.mae_high - f.mae_low for f in mixed])


def test_every_decode_step_is_as_likely_as_every_other() -> None:
    prompts = [(1, 2), (3,), (4, 5)]
    outputs = [(10, 11, 12, 13), (20,), (30, 31)]
    found: dict[tuple[int, int], int] = {}
    for seed in range(600):
        for step in choose_steps(prompts, outputs, 2, seed):
            assert step.tokens == prompts[step.answer] + outputs[step.answer][: step.age]
            assert step.remaining == len(outputs[step.answer]) - step.age >= 1
            key = (step.answer, step.age)
            found[key] = found.get(key, 0) + 1
    assert set(found) == {(0, 1), (0, 2), (0, 3), (2, 1)}
    assert min(found.values()) > 0.8 * 300
    with pytest.raises(ValueError, match="no answer has a decode step"):
        choose_steps(prompts, [(1,), (1,), (1,)], 2, 0)


def test_all_steps_are_drawn_once_when_as_many_are_asked_for() -> None:
    steps = choose_steps([(1,)], [tuple(range(50))], 49, 3)
    assert sorted(step.age for step in steps) == list(range(1, 50))


def test_a_whole_length_counted_down_is_conditioned_on_what_was_generated() -> None:
    bins = Bins((0, 10, 20, 40))
    whole = np.array([[0.5, 0.25, 0.25]] * 3)
    left = conditioned(whole, bins, np.array([0.0, 10.0, 30.0]))
    np.testing.assert_allclose(left[0], whole[0], atol=1e-6)
    # Past 10 tokens: a quarter over 0-10 to come, a quarter evenly over 10-30.
    np.testing.assert_allclose(left[1], [0.5, 0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(left[2], [1, 0, 0], atol=1e-6)
    beyond = conditioned(whole, bins, np.array([50.0, 50.0, 50.0]))
    np.testing.assert_allclose(beyond, [[1, 0, 0]] * 3)
