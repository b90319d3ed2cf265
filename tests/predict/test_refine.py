"""The refinement is the paper's filter, row by row, and never yields NaN."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trail.predict.bins import Bins, equal_bins
from trail.predict.refine import Refiner

# Two bins, [0, 2) and [2, 6): widths 2 and 4, midpoints 1 and 4. The upper bin is left with
# probability 1/4, the lower one absorbs.
TWO = Bins((0.0, 2.0, 6.0))


def test_transition_of_two_bins_by_hand() -> None:
    np.testing.assert_allclose(Refiner(TWO).transition(), [[1, 1 / 4], [0, 3 / 4]])
    np.testing.assert_allclose(Refiner(TWO).transition(2), [[1, 7 / 16], [0, 9 / 16]])
    np.testing.assert_array_equal(Refiner(TWO).transition(0), np.eye(2))


def test_transition_of_the_papers_bins_moves_mass_down_by_one_bin() -> None:
    T = Refiner(equal_bins()).transition()
    leave = 1 / 51.2
    expected = np.zeros((10, 10))
    expected[0, 0] = 1
    for i in range(1, 10):
        expected[i, i] = 1 - leave
        expected[i - 1, i] = leave
    np.testing.assert_allclose(T, expected, rtol=1e-12)


def test_a_worked_example_by_hand() -> None:
    refiner = Refiner(TWO)
    q0 = refiner.start([[0.2, 0.8]])
    np.testing.assert_allclose(refiner.tokens(q0), [0.2 * 1 + 0.8 * 4])
    # prior = (0.2 + 0.8 / 4, 0.8 * 3 / 4) = (0.4, 0.6); times p = (0.36, 0.06); normalised (6/7, 1/7)
    q1 = refiner.step(q0, [[0.9, 0.1]])
    np.testing.assert_allclose(q1, [[6 / 7, 1 / 7]])
    np.testing.assert_allclose(refiner.tokens(q1), [10 / 7])
    # Two tokens on with no evidence either way: T^2 q = (6/7 + 7/16/7, 9/16/7)
    q3 = refiner.step(q1, [[0.5, 0.5]], 2)
    np.testing.assert_allclose(q3, [[6 / 7 + 1 / 16, 9 / 16 / 7]])


def distributions(n: int, k: int) -> st.SearchStrategy[npt.NDArray[np.float64]]:
    return hnp.arrays(np.float64, (n, k), elements=st.floats(1e-6, 1.0)).map(
        lambda rows: rows / rows.sum(axis=1, keepdims=True)
    )


def slow_step(bins: Bins, q: list[float], p: list[float], steps: int) -> list[float]:
    """One row, one token at a time, in plain Python."""
    prior = list(q)
    for _ in range(steps):
        moved = [0.0] * bins.k
        for i, mass in enumerate(prior):
            down = 0.0 if i == 0 else mass / (bins.edges[i + 1] - bins.edges[i])
            moved[i] += mass - down
            if i > 0:
                moved[i - 1] += down
        prior = moved
    joint = [a * b for a, b in zip(prior, p, strict=True)]
    return [value / sum(joint) for value in joint]


@settings(deadline=None)
@given(data=st.data(), widths=st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_step_agrees_with_plain_loops_for_a_different_number_of_steps_in_every_row(
    data: st.DataObject, widths: list[int]
) -> None:
    bins = Bins(tuple(float(edge) for edge in np.cumsum([0, *widths])))
    n = data.draw(st.integers(1, 6))
    q, p = data.draw(distributions(n, bins.k)), data.draw(distributions(n, bins.k))
    steps = data.draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    result = Refiner(bins).step(q, p, np.array(steps))
    for row in range(n):
        expected = slow_step(bins, q[row].tolist(), p[row].tolist(), steps[row])
        np.testing.assert_allclose(result[row], expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(
    q=distributions(3, 10),
    p=hnp.arrays(np.float32, (3, 10), elements=st.floats(allow_nan=True, allow_infinity=True, width=32)),
    steps=st.lists(st.integers(0, 100_000), min_size=3, max_size=3),
)
def test_whatever_the_evidence_the_result_is_a_distribution(
    q: npt.NDArray[np.float64], p: npt.NDArray[np.float32], steps: list[int]
) -> None:
    refiner = Refiner(equal_bins())
    for result in (refiner.start(p), refiner.step(q, p, np.array(steps))):
        assert np.all(result >= 0)
        np.testing.assert_allclose(result.sum(axis=1), 1.0, rtol=1e-9)
        assert np.all(np.isfinite(refiner.tokens(result)))


@settings(deadline=None)
@given(q=distributions(1, 10), steps=st.integers(1, 3000))
def test_without_evidence_less_remains_as_tokens_pass(q: npt.NDArray[np.float64], steps: int) -> None:
    refiner = Refiner(equal_bins())
    assert refiner.tokens(refiner.advance(q, steps))[0] <= refiner.tokens(q)[0] + 1e-9


@settings(deadline=None)
@given(q=distributions(2, 10), first=st.integers(0, 300), second=st.integers(0, 300))
def test_advancing_twice_is_advancing_by_the_sum(q: npt.NDArray[np.float64], first: int, second: int) -> None:
    refiner = Refiner(equal_bins())
    np.testing.assert_allclose(
        refiner.advance(refiner.advance(q, first), second), refiner.advance(q, first + second), atol=1e-12
    )


def test_evidence_that_excludes_the_prior_is_believed_alone() -> None:
    q = np.array([[1.0, 0.0]])  # the lower bin absorbs: the upper one can never be reached again
    np.testing.assert_allclose(Refiner(TWO).step(q, [[0.0, 1.0]]), [[0.0, 1.0]])


@pytest.mark.parametrize("bad", [[np.nan, 0.5], [0.0, 0.0], [-0.5, 1.5], [np.inf, 0.0]])
def test_evidence_that_is_no_distribution_leaves_the_prior(bad: list[float]) -> None:
    refiner = Refiner(TWO)
    q = np.array([[0.2, 0.8], [0.2, 0.8]])
    result = refiner.step(q, [bad, [0.9, 0.1]])
    np.testing.assert_allclose(result, [[0.4, 0.6], [6 / 7, 1 / 7]])
    np.testing.assert_allclose(refiner.start([bad]), [[0.5, 0.5]])


def test_evidence_too_small_for_a_float64_product_still_decides() -> None:
    result = Refiner(TWO).step([[1.0, 0.0]], [[1e-310, 1.0]])
    np.testing.assert_allclose(result, [[1.0, 0.0]])


def test_no_requests_are_no_rows() -> None:
    refiner = Refiner(TWO)
    empty = np.empty((0, 2))
    assert refiner.step(empty, empty, np.empty(0, dtype=int)).shape == (0, 2)
    assert refiner.tokens(empty).shape == (0,)


def test_shapes_and_steps_that_do_not_fit_are_named() -> None:
    refiner = Refiner(TWO)
    with pytest.raises(ValueError, match=r"shape \[n, 2\]"):
        refiner.start([[0.1, 0.2, 0.7]])
    with pytest.raises(ValueError, match="both must be"):
        refiner.step([[0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="steps = -1"):
        refiner.advance([[0.5, 0.5]], -1)
