"""The probe computes Linear, ReLU, Linear, softmax, and refuses weights and vectors that do not fit."""

import numpy as np
import pytest

from trail.predict.bins import Bins, equal_bins
from trail.predict.probe import WEIGHT_NAMES, Probe

HIDDEN_SIZE = 6


@pytest.fixture
def probe() -> Probe:
    return Probe.untrained(HIDDEN_SIZE, equal_bins(), 3, seed=5)


def test_predictions_are_those_of_the_formula(probe: Probe) -> None:
    vectors = np.random.default_rng(0).normal(size=(7, HIDDEN_SIZE)).astype(np.float32)
    w = {name: array.astype(np.float64) for name, array in probe.weights.items()}
    units = np.maximum(vectors @ w["hidden.weight"].T + w["hidden.bias"], 0)
    exponent = np.exp(units @ w["output.weight"].T + w["output.bias"])
    expected = exponent / exponent.sum(axis=1, keepdims=True)
    result = probe.predict(vectors)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_the_papers_shape_is_512_hidden_units_and_ten_bins(probe: Probe) -> None:
    shapes = [probe.weights[name].shape for name in WEIGHT_NAMES]
    assert shapes == [(512, HIDDEN_SIZE), (512,), (10, 512), (10,)]
    assert sum(array.size for array in Probe.untrained(4096, equal_bins(), 11).weights.values()) == 2_102_794


def test_a_row_depends_on_its_own_vector_alone(probe: Probe) -> None:
    vectors = np.random.default_rng(1).normal(size=(5, HIDDEN_SIZE)).astype(np.float32)
    together = probe.predict(vectors)
    alone = np.concatenate([probe.predict(vectors[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_vectors_give_no_rows(probe: Probe) -> None:
    assert probe.predict(np.empty((0, HIDDEN_SIZE), dtype=np.float32)).shape == (0, 10)


@pytest.mark.filterwarnings("error")
def test_read_only_and_strided_vectors_are_taken(probe: Probe) -> None:
    vectors = np.random.default_rng(2).normal(size=(4, 2 * HIDDEN_SIZE)).astype(np.float32)
    vectors.setflags(write=False)
    strided = vectors[:, ::2]
    np.testing.assert_array_equal(probe.predict(strided), probe.predict(strided.copy()))
    read_only = vectors[:, :HIDDEN_SIZE].copy()
    read_only.setflags(write=False)
    np.testing.assert_array_equal(probe.predict(read_only), probe.predict(read_only.copy()))


def test_a_vector_of_nan_spoils_its_own_row_alone(probe: Probe) -> None:
    vectors = np.ones((3, HIDDEN_SIZE), dtype=np.float32)
    vectors[1, 0] = np.nan
    result = probe.predict(vectors)
    assert np.all(np.isnan(result[1]))
    assert np.all(np.isfinite(result[[0, 2]]))


def test_a_wrong_hidden_size_is_refused_with_both_sizes(probe: Probe) -> None:
    with pytest.raises(ValueError, match=r"hidden size 6.*shape \[2, 7\].*model being served"):
        probe.predict(np.zeros((2, 7), dtype=np.float32))


@pytest.mark.parametrize("name", WEIGHT_NAMES)
def test_weights_that_are_missing_misshapen_or_not_finite_are_named(probe: Probe, name: str) -> None:
    good = dict(probe.weights)
    with pytest.raises(ValueError, match=f"lack {name}"):
        Probe({key: value for key, value in good.items() if key != name}, probe.bins, 3)
    with pytest.raises(ValueError, match=r"shape|must be"):
        Probe({**good, name: good[name][:-1].reshape(-1)}, probe.bins, 3)
    broken = good[name].copy()
    broken.flat[0] = np.inf
    with pytest.raises(ValueError, match=f"{name} holds NaN or infinity"):
        Probe({**good, name: broken}, probe.bins, 3)


def test_weights_for_other_bins_are_refused(probe: Probe) -> None:
    with pytest.raises(ValueError, match="512 hidden units and 2 bins"):
        Probe(probe.weights, Bins((0.0, 10.0, 20.0)), 3)
