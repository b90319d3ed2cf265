"""The pooling filter: exact moves, evidence counted once or in part anew, and the choice of its numbers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.predict.bins import Bins, geometric_bins
from trail.predict.refine import PAPER, Decoding, Refiner
from trail.predict.training.decoding import fit_decoding
from trail.predict.training.evaluation import Sequences, follow

BINS = Bins((0, 2, 3, 5, 9, 17, 40))
POOL = Decoding(filter="pool", half_life=4.0, point="median")


def distributions(rows: int = 3) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(st.floats(0.001, 1), min_size=BINS.k, max_size=BINS.k)
    return st.lists(row, min_size=rows, max_size=rows).map(
        lambda q: np.array(q) / np.array(q).sum(axis=1, keepdims=True)
    )


@given(distributions(), st.integers(0, 60))
def test_a_move_is_that_of_mass_spread_over_its_bin(q: np.ndarray, steps: int) -> None:
    """Against a fine grid: every bin's mass on many points, each moved down and counted where it lands."""
    moved = Refiner(BINS, POOL).advance(q, steps)
    points = 4000
    slow = np.zeros_like(q)
    for j, (low, high) in enumerate(zip(BINS.edges, BINS.edges[1:], strict=False)):
        at = low + (np.arange(points) + 0.5) / points * (high - low) - steps
        landed = BINS.index(np.maximum(at, 0))
        for i in range(BINS.k):
            slow[:, i] += q[:, j] * np.mean(landed == i)
    np.testing.assert_allclose(moved, slow, atol=2 / points)
    np.testing.assert_allclose(moved.sum(axis=1), 1)


@given(distributions(1))
def test_one_token_moves_as_the_papers_chain_does(q: np.ndarray) -> None:
    np.testing.assert_allclose(Refiner(BINS, POOL).advance(q, 1), Refiner(BINS).advance(q, 1), atol=1e-12)


@given(distributions(2))
def test_the_same_evidence_again_changes_nothing_where_bayes_sharpens(q: np.ndarray) -> None:
    pooled = Refiner(BINS, POOL).step(q, q, 0)
    np.testing.assert_allclose(pooled, q, rtol=1e-5)
    bayes = Refiner(BINS).step(q, q, 0)
    assert np.all(bayes.max(axis=1) >= q.max(axis=1) - 1e-12)


@given(distributions(1), distributions(1), st.integers(1, 50))
def test_memory_fades_with_every_prediction_however_far_apart(
    q: np.ndarray, p: np.ndarray, steps: int
) -> None:
    refiner = Refiner(BINS, POOL)
    weight = 2.0 ** (-1 / POOL.half_life)
    prior = refiner.advance(q, steps)
    slow = (prior + 1e-9) ** weight * (p + 1e-9) ** (1 - weight)
    np.testing.assert_allclose(refiner.step(q, p, steps), slow / slow.sum(), rtol=1e-6)
    forgetful = Refiner(BINS, dataclasses.replace(POOL, half_life=0.0))
    np.testing.assert_allclose(forgetful.step(q, p, steps), p, rtol=1e-5)


@given(distributions(1), distributions(1), st.integers(0, 50), st.floats(0, 100), st.floats(0, 1))
def test_novelty_weighs_the_newest_output_between_the_pool_and_the_product(
    q: np.ndarray, p: np.ndarray, steps: int, half_life: float, novelty: float
) -> None:
    refiner = Refiner(BINS, dataclasses.replace(POOL, half_life=half_life, novelty=novelty))
    memory = 2.0 ** (-1 / half_life) if half_life > 0.01 else 0.0
    slow = (refiner.advance(q, steps) + 1e-9) ** memory * (p + 1e-9) ** ((1 - memory) + novelty * memory)
    np.testing.assert_allclose(refiner.step(q, p, steps), slow / slow.sum(), rtol=1e-6)


@given(distributions(2), distributions(2), st.integers(0, 1))
def test_full_memory_and_novelty_are_the_papers_product(q: np.ndarray, p: np.ndarray, steps: int) -> None:
    """Where the two moves agree: at no token and at one."""
    everything = Refiner(BINS, dataclasses.replace(POOL, half_life=1e12, novelty=1.0))
    np.testing.assert_allclose(everything.step(q, p, steps), Refiner(BINS).step(q, p, steps), rtol=1e-4)


@given(distributions(1), distributions(1), st.floats(0, 1), st.floats(0, 1))
def test_more_novelty_never_lowers_the_share_of_the_newest_outputs_favourite(
    q: np.ndarray, p: np.ndarray, one: float, other: float
) -> None:
    favourite = int(p[0].argmax())
    less, more = (
        Refiner(BINS, dataclasses.replace(POOL, novelty=novelty)).step(q, p, 1)[0, favourite]
        for novelty in sorted((one, other))
    )
    assert more >= less - 1e-12


def test_unusable_evidence_leaves_the_prior_and_impossible_priors_do_not_last() -> None:
    refiner = Refiner(BINS, POOL)
    q = np.eye(BINS.k)[[0]]
    nothing = np.full((1, BINS.k), np.nan)
    np.testing.assert_allclose(refiner.step(q, nothing, 3), refiner.advance(q, 3))
    far = np.eye(BINS.k)[[5]]
    for _ in range(12):
        q = refiner.step(q, far, 1)
    assert q[0, 5] > 0.9


def test_sharpness_widens_what_is_read_and_not_what_is_kept() -> None:
    q = np.array([[0.7, 0.1, 0.1, 0.05, 0.03, 0.02]])
    flat = Refiner(BINS, dataclasses.replace(POOL, sharpness=0.5))
    read = flat.read(q)
    np.testing.assert_allclose(read, q**0.5 / (q**0.5).sum(), rtol=1e-6)
    np.testing.assert_array_equal(flat.start(q), Refiner(BINS, POOL).start(q))


def test_the_median_is_the_guess_of_least_error() -> None:
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(BINS.k), 40)
    tokens = Refiner(BINS, POOL).tokens(q)
    low = np.array(BINS.edges[:-1], dtype=int)
    high = np.array(BINS.edges[1:], dtype=int)
    for row, guess in zip(q, tokens, strict=True):
        lengths = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
        mass = np.concatenate([np.full(b - a, m / (b - a)) for a, b, m in zip(low, high, row, strict=True)])
        errors = [float(mass @ np.abs(lengths - candidate)) for candidate in lengths]
        assert float(mass @ np.abs(lengths - guess)) <= min(errors) + 0.5 * float(mass.max())


def test_decoding_survives_json_and_refuses_what_it_does_not_know() -> None:
    assert Decoding.from_json(POOL.to_json()) == POOL
    assert Decoding.from_json(PAPER.to_json()) == PAPER
    for change in (
        {"filter": "kalman"},
        {"half_life": -1.0},
        {"sharpness": 0.0},
        {"point": "mode"},
        {"novelty": -0.1},
        {"novelty": 1.1},
        {"novelty": float("nan")},
    ):
        with pytest.raises(ValueError, match=r"must be|is one of"):
            Decoding.from_json({**POOL.to_json(), **change})
    with pytest.raises(ValueError, match="must be a number"):
        Decoding.from_json({**POOL.to_json(), "half_life": "long"})
    for wrong in ({"filter": "pool"}, {**POOL.to_json(), "gain": 1.0}):
        with pytest.raises(ValueError, match="must hold"):
            Decoding.from_json(wrong)


def test_a_decoding_without_novelty_is_the_pool_as_it_was() -> None:
    older = {name: value for name, value in POOL.to_json().items() if name != "novelty"}
    assert Decoding.from_json(older) == POOL
    assert POOL.novelty == 0


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(45, 100_000))
def test_geometric_bins_grow_and_end_where_asked(k: int, longest: int) -> None:
    bins = geometric_bins(k, longest)
    assert bins.k == k
    assert bins.edges[-1] == longest
    assert all(float(edge).is_integer() for edge in bins.edges)
    assert np.all(np.diff(bins.widths[1:-1]) >= -1)  # rounding may take one token


def test_too_many_geometric_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer bins"):
        geometric_bins(64, 40)


def answers(noise: float, copies: int, rng: np.random.Generator) -> tuple[Sequences, np.ndarray]:
    """Requests whose evidence is a blurred truth, redrawn only every `copies` tokens."""
    lengths = rng.integers(8, 38, 150)
    ages = np.concatenate([np.arange(n) for n in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sequences = Sequences(
        np.zeros((len(ages), 1), np.float32), ages, offsets, lengths, prompt_tokens=np.full(150, 4)
    )
    p = np.empty((len(ages), BINS.k))
    grid = np.arange(60)
    for i, n in enumerate(lengths):
        for age in range(n):
            if age % copies == 0:
                guess = (n - age) * np.exp(noise * rng.normal())
            seen = np.exp(-0.5 * ((np.log(grid + 1) - np.log(max(guess - age % copies, 0) + 1)) / noise) ** 2)
            p[offsets[i] + age] = np.bincount(BINS.index(np.minimum(grid, 39)), seen, BINS.k) / seen.sum()
    return sequences, p


def surprise(sequences: Sequences, p: np.ndarray, decoding: Decoding) -> float:
    refiner = Refiner(BINS, decoding)
    read = refiner.read(follow(sequences, p, refiner))
    decode = sequences.ages > 0
    truth = BINS.index(sequences.remaining)
    return -float(np.log(read[np.arange(len(read)), truth] + 1e-12)[decode].mean())


@pytest.mark.parametrize("copies", [1, 12])
def test_the_fitted_filter_is_the_least_surprised(copies: int) -> None:
    sequences, p = answers(0.6, copies, np.random.default_rng(1))
    start = Decoding(filter="pool", point="median")
    fitted = fit_decoding(sequences, p, BINS, start)
    least = surprise(sequences, p, fitted)
    others = [
        dataclasses.replace(start, half_life=half_life, novelty=novelty, sharpness=sharpness)
        for half_life in (0.0, 1.0, 8.0, 64.0)
        for novelty in (0.0, 0.3, 1.0)
        for sharpness in (0.3, 0.7, 1.0, 1.6)
    ]
    for other in (*others, PAPER):
        assert least <= surprise(sequences, p, other) + 1e-9
    # New evidence at every token is worth remembering; the same for twelve tokens is not worth multiplying.
    if copies == 1:
        assert fitted.half_life > 0
        assert fitted.novelty > 0
    else:
        assert least < surprise(sequences, p, PAPER) - 0.1


def test_the_same_answers_give_the_same_filter() -> None:
    sequences, p = answers(0.6, 3, np.random.default_rng(3))
    start = Decoding(filter="pool", point="median")
    assert fit_decoding(sequences, p, BINS, start) == fit_decoding(sequences, p, BINS, start)


def test_without_memory_novelty_is_left_as_it_was() -> None:
    """Outputs that leave nothing unknown: what came before adds nothing."""
    sequences, _ = answers(0.6, 1, np.random.default_rng(4))
    p = np.eye(BINS.k)[BINS.index(sequences.remaining)] * 0.999 + 0.001 / BINS.k
    fitted = fit_decoding(sequences, p, BINS, Decoding(filter="pool"))
    assert (fitted.half_life, fitted.novelty) == (0.0, 0.0)


def test_cut_answers_have_no_say_in_the_filter() -> None:
    sequences, p = answers(0.6, 1, np.random.default_rng(2))
    cut = dataclasses.replace(sequences, censored=np.ones(150, dtype=np.bool_))
    with pytest.raises(ValueError, match="no decode step with a known end"):
        fit_decoding(cut, p, BINS, Decoding(filter="pool"))
