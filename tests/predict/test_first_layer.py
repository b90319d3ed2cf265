"""Every arithmetic is off by no more than its rounding, and rows keep to themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.demo_model import sampling, train_model
from trail.demo import demo_model_dir, demo_predictor_dir
from trail.demo.corpus import demo_prompts
from trail.predict import artefact
from trail.predict.bins import geometric_bins
from trail.predict.first_layer import ARITHMETICS, BATCHES, FastestLayer, choose, make_layer
from trail.predict.probe import FASTEST, POSITION_INPUTS, POSITION_WEIGHT, Probe
from trail.predict.refine import Refiner
from trail.predict.training.evaluation import Sequences, follow
from trail.predict.training.probe_training import predict_rows

BINS = geometric_bins(12, 400)
OTHERS = ARITHMETICS[1:]


def folded(hidden_size: int, seed: int) -> tuple[Probe, np.ndarray]:
    """A probe as training leaves it, standardisation in its weights, and inputs [40, H] as models have them.

    Inputs differ in scale by orders of magnitude and lie around means; three have a mean of many deviations.
    """
    rng = np.random.default_rng(seed)
    mean, scale = rng.normal(size=hidden_size), np.exp(1.5 * rng.normal(size=hidden_size))
    mean[:3] = 30 * scale[:3]
    first = rng.normal(size=(64, hidden_size)) / np.sqrt(hidden_size) / scale
    weights = {
        "hidden.weight": first,
        "hidden.bias": 0.3 * rng.normal(size=64) - first @ mean,
        "output.weight": rng.normal(size=(BINS.k, 64)) / 4,
        "output.bias": rng.normal(size=BINS.k),
        POSITION_WEIGHT: rng.normal(size=(64, POSITION_INPUTS)) / 4,
    }
    return Probe(weights, BINS, 1), (mean + scale * rng.normal(size=(40, hidden_size))).astype(np.float32)


def predict(probe: Probe, vectors: np.ndarray) -> np.ndarray:
    return probe.predict(vectors, np.arange(len(vectors)), np.full(len(vectors), 9))


def unit_bounds(arithmetic: str, weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The most that rounding can move each unit by, [n, units]; bfloat16 moves a value by 2^-8 of it."""
    exact = torch.nn.functional.linear(x, weight, bias)
    if arithmetic == "bfloat16":
        terms = x.abs() @ weight.abs().T  # both factors of each are rounded
        # Some kernels round the sum of products before they add the bias, and round again.
        return 2.01 * 2**-8 * terms + 1.01 * 2**-8 * ((exact - bias).abs() + exact.abs() + bias.abs()) + 1e-5
    largest = weight.abs().amax(dim=0)
    even = weight / largest
    level = even.abs().amax(dim=1) / 127 * (1 + 2**-8)
    inputs = x.abs() * largest
    # A weight is off by half a level; a row's greatest by as much again where its level was rounded down.
    off = inputs.sum(dim=1, keepdim=True) * (level * 1.01)
    return off + 1.02 * 2**-8 * (inputs @ even.abs().T) + 2**-8 * (exact - bias).abs() * 1.1 + 1e-5


@pytest.mark.parametrize(
    ("arithmetic", "hidden_size"),
    [("bfloat16", 6), ("bfloat16", 257), *((name, size) for name in OTHERS for size in (64, 192, 1024))],
)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_units_are_off_by_no_more_than_rounding(arithmetic: str, hidden_size: int, seed: int) -> None:
    probe, vectors = folded(hidden_size, seed)
    weight, bias = (torch.from_numpy(probe.weights[name]) for name in ("hidden.weight", "hidden.bias"))
    x = torch.from_numpy(vectors)
    off = make_layer(arithmetic, weight, bias)(x) - torch.nn.functional.linear(x, weight, bias)
    assert bool((off.abs() <= unit_bounds(arithmetic, weight, bias, x)).all())


@pytest.fixture(scope="module")
def recorded() -> Sequences:
    """Hidden states of the demo model while it answers."""
    model = train_model.load_model(demo_model_dir())
    prompts = [prompt.token_ids for prompt in demo_prompts(30, seed=31)]
    answers = sampling.sample_answers(model, prompts, seed=31, max_tokens=200)
    return sampling.hidden_states(model, answers, (3,))[3]


@pytest.mark.parametrize("arithmetic", OTHERS)
def test_a_trained_predictor_says_much_the_same(arithmetic: str, recorded: Sequences) -> None:
    """Of any probability at most 0.1 is moved, 0.01 on average; the error stays what it was."""
    manifest = artefact.read_manifest(demo_predictor_dir())
    probe = artefact.load_probe(demo_predictor_dir(), manifest)
    assert probe.layer == 3
    rows = recorded.rows()
    exact, found = (predict_rows(p, rows) for p in (probe, probe.prepared(arithmetic)))
    moved = np.abs(found - exact).max(axis=1)
    assert moved.max() <= 0.1
    assert moved.mean() <= 0.01
    refiner = Refiner(probe.bins, manifest.decoding)
    errors = [
        np.abs(refiner.tokens(follow(recorded, p, refiner)) - recorded.remaining) for p in (exact, found)
    ]
    assert errors[1].mean() <= 1.02 * errors[0].mean()


@pytest.mark.parametrize("arithmetic", [*OTHERS, FASTEST])
@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 39), other=st.sampled_from([0.0, 1e6, -1e6, float("nan"), float("inf")]))
def test_no_row_changes_by_what_is_in_the_others(arithmetic: str, at: int, other: float) -> None:
    probe, vectors = folded(64, 1)
    served = PREPARED.setdefault(arithmetic, probe.prepared(arithmetic))
    among = np.full_like(vectors, other)
    among[at] = vectors[at]
    np.testing.assert_array_equal(predict(served, among)[at], predict(served, vectors)[at])


PREPARED: dict[str, Probe] = {}


@pytest.mark.parametrize("arithmetic", OTHERS)
def test_a_row_alone_is_what_it_is_in_a_batch(arithmetic: str) -> None:
    probe, vectors = folded(128, 2)
    served = probe.prepared(arithmetic)
    ages, prompts = np.arange(40), np.full(40, 9)
    together = served.predict(vectors, ages, prompts)
    for i in range(40):
        alone = served.predict(vectors[i : i + 1], ages[i : i + 1], prompts[:1])[0]
        np.testing.assert_allclose(alone, together[i], atol=5e-3)  # sums in another order, then rounded


@pytest.mark.parametrize("arithmetic", [*OTHERS, FASTEST])
def test_a_vector_of_nan_spoils_its_own_row_alone_and_no_vector_gives_no_row(arithmetic: str) -> None:
    probe, vectors = folded(64, 3)
    served = probe.prepared(arithmetic)
    vectors[7, 5] = np.nan
    result = predict(served, vectors)
    assert np.all(np.isnan(result[7]))
    assert np.isfinite(np.delete(result, 7, axis=0)).all()
    assert predict(served, vectors[:0]).shape == (0, BINS.k)


def test_inputs_of_any_scale_count_alike_where_weights_are_levels() -> None:
    """Levels shared by inputs of unlike scale would round the weights of large inputs away."""
    probe, vectors = folded(64, 4)
    weight, bias = (torch.from_numpy(probe.weights[name]) for name in ("hidden.weight", "hidden.bias"))
    scales = 2.0 ** torch.randint(-20, 20, (64,), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(vectors)
    scaled = make_layer("int8", weight * scales, bias)(x / scales)
    np.testing.assert_array_equal(scaled, make_layer("int8", weight, bias)(x))


def test_weights_of_zero_stay_zero() -> None:
    for arithmetic in ARITHMETICS:
        layer = make_layer(arithmetic, torch.zeros((64, 64)), torch.arange(64.0))
        np.testing.assert_array_equal(layer(torch.ones((3, 64))), np.tile(np.arange(64.0), (3, 1)))


@pytest.mark.parametrize("hidden_size", [6, 100, 4095])
def test_sizes_that_the_operator_for_levels_cannot_take_are_refused_and_not_chosen(hidden_size: int) -> None:
    probe, _ = folded(hidden_size, 7)
    with pytest.raises(RuntimeError, match="multiples of 64"):
        probe.prepared("int8")
    assert "int8" not in probe.prepared().arithmetic.values()


def test_preparing_leaves_the_probe_as_it_was() -> None:
    probe, vectors = folded(64, 5)
    before = predict(probe, vectors)
    served = probe.prepared("int8")
    np.testing.assert_array_equal(predict(probe, vectors), before)
    assert served.weights is probe.weights
    assert (probe.arithmetic, served.arithmetic) == ({1: "float32"}, {1: "int8"})
    np.testing.assert_array_equal(predict(served.prepared("float32"), vectors), before)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="one of float32, bfloat16, int8, got 'fp4'"):
        folded(8, 0)[0].prepared("fp4")


def test_the_measurement_chooses_among_what_there_is() -> None:
    served = folded(64, 6)[0].prepared()
    assert next(iter(served.arithmetic)) == 1
    assert set(served.arithmetic) <= set(BATCHES)
    assert set(served.arithmetic.values()) <= set(ARITHMETICS)


@given(st.lists(st.tuples(*[st.floats(0.01, 100)] * 3), min_size=len(BATCHES), max_size=len(BATCHES)))
def test_a_less_exact_arithmetic_is_taken_only_where_it_is_a_tenth_faster(
    times: list[tuple[float, float, float]],
) -> None:
    chosen = choose(dict(zip(ARITHMETICS, zip(*times, strict=True), strict=True)))
    for batch, took in zip(BATCHES, times, strict=True):
        name = [chosen[rows] for rows in chosen if rows <= batch][-1]
        of = dict(zip(ARITHMETICS, took, strict=True))
        assert name == "float32" or of[name] <= 0.9 * of["float32"]
        assert min(of.values()) >= 0.9 * of[name]
        assert all(of[name] < of[exact] for exact in ARITHMETICS[: ARITHMETICS.index(name)])


class Named:
    """Says by the value it gives which layer it is."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.full((len(vectors), 1), self.value)


def test_every_batch_goes_to_the_layer_of_its_size() -> None:
    slow_at_few = [9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 9.0]
    layers = {"float32": Named(32.0), "bfloat16": Named(16.0)}
    layer = FastestLayer(layers, {"float32": [2.0] * len(BATCHES), "bfloat16": slow_at_few})
    assert layer.chosen == {1: "float32", 8: "bfloat16", 256: "float32"}
    for rows, expected in ((1, 32.0), (7, 32.0), (8, 16.0), (255, 16.0), (256, 32.0), (3000, 32.0)):
        assert float(layer(torch.zeros((rows, 2)))[0, 0]) == expected
