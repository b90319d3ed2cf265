"""Bins cover every length once, at the paper's edges, and refuse what is no set of bins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.predict.bins import Bins, equal_bins


def test_the_papers_bins_are_ten_equal_ones_over_512_tokens() -> None:
    bins = equal_bins()
    assert bins.k == 10
    assert bins.edges[0] == 0
    assert bins.edges[-1] == 512
    np.testing.assert_allclose(bins.widths, 51.2)
    np.testing.assert_allclose(bins.midpoints, 25.6 + 51.2 * np.arange(10))


def test_a_length_on_an_edge_belongs_to_the_upper_bin_and_one_beyond_the_last_edge_to_the_last() -> None:
    bins = Bins((0, 2, 6, 10))
    lengths = [0, 1.5, 2, 5, 6, 9, 10, 10_000]
    assert bins.index(lengths).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]


@given(
    widths=st.lists(st.floats(1, 100), min_size=1, max_size=12),
    lengths=st.lists(st.floats(0, 2000), max_size=20),
)
def test_index_agrees_with_a_search_bin_by_bin(widths: list[float], lengths: list[float]) -> None:
    edges = [0.0]
    for width in widths:
        edges.append(edges[-1] + np.nextafter(width, np.inf) + 1e-9)
    bins = Bins(tuple(edges))

    def slow(length: float) -> int:
        for i in range(bins.k):
            if length < edges[i + 1]:
                return i
        return bins.k - 1

    assert bins.index(lengths).tolist() == [slow(length) for length in lengths]


@pytest.mark.parametrize(
    ("edges", "names"),
    [
        ((0.0,), "at least two edges"),
        ((1.0, 5.0), "must be 0"),
        ((0.0, 5.0, 4.0), "ascend"),
        ((0.0, 5.0, 5.5), "at least 1 token wide"),
        ((0.0, float("nan")), "finite"),
        ((0.0, float("inf")), "finite"),
    ],
)
def test_edges_that_are_no_bins_are_refused(edges: tuple[float, ...], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Bins(edges)


def test_equal_bins_refuses_no_bins_and_bins_under_a_token() -> None:
    with pytest.raises(ValueError, match="at least one bin"):
        equal_bins(0)
    with pytest.raises(ValueError, match="at least 1 token wide"):
        equal_bins(10, 5.0)


@pytest.mark.parametrize("length", [-1.0, float("nan"), float("inf")])
def test_lengths_that_are_none_are_refused(length: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        equal_bins().index([length])
