"""The Gittins index against its definition on a fine grid, and where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.policy.gittins import gittins_index

GRID = 400


@st.composite
def distributions(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    widths = draw(st.lists(st.floats(0.5, 50), min_size=1, max_size=8))
    edges = np.concatenate([[draw(st.sampled_from([0.0, 3.0]))], widths]).cumsum().tolist()
    weights = draw(
        st.lists(st.sampled_from([0.0, 0.01, 0.2, 1.0]), min_size=len(widths), max_size=len(widths))
    )
    if not sum(weights):
        weights[-1] = 1.0
    return weights, edges


def slow_index(weights: list[float], edges: list[float]) -> float:
    """The definition, q by q: the expectation as the integral of P(L > x) over [0, q] on the grid."""
    p = np.array(weights) / sum(weights)
    points = np.unique(np.concatenate([np.linspace(0, edges[-1], GRID), edges]))
    cumulative = np.interp(points, edges, np.concatenate([[0.0], p.cumsum()]))  # mass even within bins
    survival = 1.0 - cumulative
    best = np.inf
    for i in range(1, len(points)):
        # P(L > x) is a straight line between points, so that the trapezium rule is exact.
        work = sum((survival[j - 1] + survival[j]) / 2 * (points[j] - points[j - 1]) for j in range(1, i + 1))
        if cumulative[i] > 1e-12:
            best = min(best, work / cumulative[i])
    return float(best)


@settings(max_examples=25, deadline=None)
@given(distributions())
def test_the_index_is_that_of_the_definition(distribution: tuple[list[float], list[float]]) -> None:
    weights, edges = distribution
    assert gittins_index([weights], edges)[0] == pytest.approx(slow_index(weights, edges), rel=1e-9)


@given(distributions(), st.floats(0.1, 10))
def test_the_index_is_at_most_the_mean_and_scales_with_the_lengths(
    distribution: tuple[list[float], list[float]], factor: float
) -> None:
    weights, edges = distribution
    p, midpoints = np.array(weights) / sum(weights), (np.array(edges)[1:] + np.array(edges)[:-1]) / 2
    index = gittins_index([weights], edges)
    assert index[0] <= p @ midpoints * (1 + 1e-12)
    assert gittins_index([weights], factor * np.array(edges))[0] == pytest.approx(factor * index[0])


def test_a_length_that_is_nearly_known_has_itself_as_index() -> None:
    edges = np.arange(0.0, 101.0)
    index = gittins_index(np.eye(100), edges)
    np.testing.assert_allclose(index, edges[:-1] + 0.5)


def test_a_gamble_on_a_short_answer_comes_before_its_mean() -> None:
    # Nine in ten end within a token, one takes about a thousand: the mean is 100, the index about one.
    index = gittins_index([[0.9, 0.0, 0.1]], [0.0, 1.0, 999.0, 1001.0])
    assert index[0] == pytest.approx((0.9 * 0.5 + 0.1 * 1.0) / 0.9)


def test_requests_do_not_influence_one_another() -> None:
    rows = np.random.default_rng(1).random((6, 5))
    edges = [0.0, 2.0, 5.0, 9.0, 20.0, 60.0]
    together = gittins_index(rows, edges)
    assert together.tolist() == [gittins_index(row[None], edges)[0] for row in rows]
    assert gittins_index(np.zeros((0, 5)), edges).shape == (0,)


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="no positive sum"):
        gittins_index([[0.0, 0.0]], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="no positive sum"):
        gittins_index([[np.nan, 1.0]], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"\[k \+ 1\]"):
        gittins_index([[0.5, 0.5]], [0.0, 1.0])
