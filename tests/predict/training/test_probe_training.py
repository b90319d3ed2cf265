"""Training finds what the hidden states hold, the same way every time."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trail.predict.bins import equal_bins
from trail.predict.probe import WEIGHT_NAMES
from trail.predict.training.probe_training import ProbeRecipe, ProbeRows, TrainedProbe, train_probe

BINS = equal_bins(4, 64.0)
ROWS, HIDDEN_SIZE = 1200, 6
SHORT = ProbeRecipe(hidden_units=32, epochs=4, batch_size=32, seed=3)


@pytest.fixture(scope="module")
def remaining() -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, 64, ROWS)


@pytest.fixture(scope="module")
def vectors(remaining: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Hidden states that carry the remaining length in one direction, far from the origin and off scale."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(ROWS, HIDDEN_SIZE))
    signal = np.outer(remaining / 64, rng.normal(size=HIDDEN_SIZE))
    return (1000 + 0.01 * (signal * 20 + noise)).astype(np.float32)


@pytest.fixture(scope="module")
def held_out() -> npt.NDArray[np.bool_]:
    return np.arange(ROWS) % 5 == 0


def train(
    vectors: npt.NDArray[np.float32],
    remaining: npt.NDArray[np.int64],
    held_out: npt.NDArray[np.bool_],
    recipe: ProbeRecipe = SHORT,
) -> TrainedProbe:
    return train_probe(ProbeRows(vectors, remaining), held_out, bins=BINS, layer=1, recipe=recipe)


def test_the_papers_recipe_is_the_default() -> None:
    recipe = ProbeRecipe()
    assert (recipe.hidden_units, recipe.epochs, recipe.batch_size) == (512, 30, 32)
    assert recipe.learning_rate == 0.01


def test_a_length_in_the_vectors_is_learned_and_judged_on_rows_not_trained_on(
    vectors: npt.NDArray[np.float32], remaining: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]
) -> None:
    trained = train(vectors, remaining, held_out)
    assert trained.metrics["mae_tokens"] < 0.4 * trained.metrics["mae_constant_tokens"]
    assert trained.metrics["rows"] == held_out.sum()
    assert trained.training_loss[-1] < trained.training_loss[0]
    predicted = trained.probe.predict(vectors[held_out]).astype(np.float64) @ BINS.midpoints
    assert np.abs(predicted - remaining[held_out]).mean() == pytest.approx(trained.metrics["mae_tokens"])


def test_lengths_that_the_vectors_do_not_hold_are_not_learned(
    vectors: npt.NDArray[np.float32], remaining: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]
) -> None:
    shuffled = np.random.default_rng(5).permutation(remaining)
    trained = train(vectors, shuffled, held_out)
    assert trained.metrics["mae_tokens"] > 0.8 * trained.metrics["mae_constant_tokens"]


def test_held_out_rows_change_nothing_in_the_probe(
    vectors: npt.NDArray[np.float32], remaining: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]
) -> None:
    base = train(vectors, remaining, held_out).probe
    other_vectors, other_remaining = vectors.copy(), remaining.copy()
    other_vectors[held_out] = 7.0
    other_remaining[held_out] = 0
    other = train(other_vectors, other_remaining, held_out).probe
    for name in WEIGHT_NAMES:
        np.testing.assert_array_equal(base.weights[name], other.weights[name])


def test_a_mapped_file_trains_the_same_probe_as_memory_and_the_seed_decides_which(
    tmp_path: Path,
    vectors: npt.NDArray[np.float32],
    remaining: npt.NDArray[np.int64],
    held_out: npt.NDArray[np.bool_],
) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    first, second = train(vectors, remaining, held_out), train(mapped, remaining, held_out)
    for name in WEIGHT_NAMES:
        np.testing.assert_array_equal(first.probe.weights[name], second.probe.weights[name])
    assert first.metrics == second.metrics
    other = train(vectors, remaining, held_out, ProbeRecipe(hidden_units=32, epochs=4, seed=4))
    assert not np.array_equal(first.probe.weights["output.weight"], other.probe.weights["output.weight"])


def test_progress_is_told_after_every_epoch(
    vectors: npt.NDArray[np.float32], remaining: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]
) -> None:
    told: list[tuple[int, int, float]] = []
    trained = train_probe(
        ProbeRows(vectors, remaining),
        held_out,
        bins=BINS,
        layer=1,
        recipe=SHORT,
        progress=lambda done, of, loss: told.append((done, of, loss)),
    )
    assert told == [(i + 1, 4, loss) for i, loss in enumerate(trained.training_loss)]


def test_nothing_held_out_gives_a_probe_without_a_verdict(
    vectors: npt.NDArray[np.float32], remaining: npt.NDArray[np.int64]
) -> None:
    assert train(vectors, remaining, np.zeros(ROWS, dtype=np.bool_)).metrics == {"rows": 0.0}


def test_data_that_does_not_fit_is_named(
    vectors: npt.NDArray[np.float32], remaining: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]
) -> None:
    with pytest.raises(ValueError, match="1200 rows need 1200 values of remaining"):
        train(vectors, remaining[:-1], held_out)
    with pytest.raises(ValueError, match="held_out as bool"):
        train(vectors, remaining, held_out.astype(np.int64))  # type: ignore[arg-type]  # the wrong type is the point
    with pytest.raises(ValueError, match="nothing is left to train on"):
        train(vectors, remaining, np.ones(ROWS, dtype=np.bool_))
    broken = vectors.copy()
    broken[1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in the vectors"):
        train(broken, remaining, held_out)
    with pytest.raises(ValueError, match="must be at least 1"):
        train(vectors, remaining, held_out, ProbeRecipe(epochs=0))
