"""Cut answers, position inputs and early stopping in training."""

import numpy as np
import pytest
import torch

from trail.predict.bins import equal_bins
from trail.predict.encoder import EncoderSize
from trail.predict.probe import Probe, position_inputs
from trail.predict.quantiles import truncated
from trail.predict.training.calibration import interval_coverage
from trail.predict.training.likelihood import share_beyond, surprise
from trail.predict.training.probe_training import ProbeRecipe, ProbeRows, predict_rows, train_probe
from trail.predict.training.prompt_training import PromptRecipe, train_prompt_predictor
from trail.predict.training.recipes import DEFAULT

BINS = equal_bins(4, 40.0)
RECIPE = ProbeRecipe(hidden_units=32, epochs=12, batch_size=64, position=True, seed=1)


def loss(logits: torch.Tensor, lengths: list[int], cut: list[bool]) -> torch.Tensor:
    given = np.array(lengths)
    return surprise(logits, BINS.index(given), share_beyond(BINS, given), np.array(cut))


def test_a_cut_answer_counts_for_all_that_lies_above_it() -> None:
    logits = torch.tensor([[0.1, 1.0, -0.5, 0.3], [0.4, 0.2, 0.9, -1.0]])
    p = torch.softmax(logits, dim=1).numpy()
    # Cut at 12: of the bin of 10 to 19 the seven numbers from 13 on.
    found = float(loss(logits, [12, 25], [True, False]))
    assert found == pytest.approx(-(np.log(0.7 * p[0, 1] + p[0, 2:].sum()) + np.log(p[1, 2])) / 2, rel=1e-6)
    np.testing.assert_allclose(share_beyond(BINS, np.array([0, 9, 12, 35, 39, 50])), [0.9, 0, 0.7, 1, 1, 1])


def test_no_answer_is_impossible_and_every_gradient_finite() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, -200.0], [0.0, 0.0, 0.0, 200.0]], requires_grad=True)
    value = loss(logits, [29, 29], [True, True])
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def covered_within_limits(*, whole_bin: bool) -> float:
    """Long answers cut at limits inside wide bins, learned limit by limit: how many of those that ended lie
    in their central 80 % intervals, given the limit. `whole_bin`: a cut answer counts for all of its bin."""
    rng = np.random.default_rng(4)
    limits, n = np.arange(100, 400, 3), 150
    bins = DEFAULT.make_bins(400.0, cut=True)
    whole = np.ceil(rng.exponential(200.0, (len(limits), n)))
    cut = (whole > limits[:, None]).ravel()
    lengths = np.minimum(whole, limits[:, None]).ravel().astype(np.int64)
    beyond = np.ones(len(lengths), dtype=np.float32) if whole_bin else share_beyond(bins, lengths)
    logits = torch.zeros((len(limits), bins.k), requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = surprise(logits.repeat_interleave(n, dim=0), bins.index(lengths), beyond, cut)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)
    p = np.repeat(torch.softmax(logits.detach(), dim=1).numpy(), n, axis=0)
    within = truncated(p, bins, np.repeat(limits, n))[~cut]
    return interval_coverage(lengths[~cut], within, bins)[0]


def test_answers_that_end_are_expected_where_answers_end() -> None:
    """Counting the bin of the limit whole, the mass of cut answers spreads over it, and intervals of the
    answers that ended hold too many of them."""
    assert covered_within_limits(whole_bin=False) == pytest.approx(0.8, abs=0.02)
    assert covered_within_limits(whole_bin=True) > 0.82


def rows(n: int, seed: int, limit: int) -> ProbeRows:
    """Lengths known from age alone: an answer has 40 tokens, or is cut at `limit`."""
    rng = np.random.default_rng(seed)
    ages = rng.integers(0, limit, n)
    cut = rng.random(n) < 0.5
    return ProbeRows(
        rng.normal(size=(n, 3)).astype(np.float32),
        np.where(cut, limit, 39) - ages,
        ages=ages,
        prompt_tokens=np.full(n, 7),
        censored=cut,
    )


def test_cut_answers_do_not_pull_predictions_down() -> None:
    data = rows(4000, 0, 20)
    none = np.zeros(len(data), dtype=np.bool_)
    told = train_probe(data, none, bins=BINS, layer=1, recipe=RECIPE).probe
    believed = ProbeRows(data.vectors, data.remaining, data.ages, data.prompt_tokens)
    misled = train_probe(believed, none, bins=BINS, layer=1, recipe=RECIPE).probe
    early = np.flatnonzero(data.ages < 5)
    truth = 39 - data.ages[early]
    error = [
        float(np.abs(predict_rows(probe, data, early) @ BINS.midpoints - truth).mean())
        for probe in (told, misled)
    ]
    assert error[0] < 5
    assert error[1] > error[0] + 3


def test_position_alone_can_be_learned_and_is_folded_exactly() -> None:
    data = rows(3000, 1, 39)
    trained = train_probe(data, np.arange(3000) % 4 == 0, bins=BINS, layer=1, recipe=RECIPE)
    assert trained.probe.reads_position
    with pytest.raises(ValueError, match="reads position"):
        trained.probe.predict(data.vectors[:2])
    whole = predict_rows(trained.probe, data)
    parts = trained.probe.predict(data.vectors[:5], data.ages[:5], data.prompt_tokens[:5])  # type: ignore[index]
    np.testing.assert_allclose(whole[:5], parts, rtol=1e-4, atol=1e-6)
    again = Probe(trained.probe.weights, BINS, 1)
    np.testing.assert_array_equal(again.predict(data.vectors, data.ages, data.prompt_tokens), whole)


def test_position_inputs_are_finite_and_ordered() -> None:
    inputs = position_inputs([0, 10, 100_000], [1, 1, 100_000])
    assert inputs.shape == (3, 4)
    assert np.all(np.isfinite(inputs))
    assert np.all(np.diff(inputs[:, 0]) > 0)


def test_missing_columns_are_named() -> None:
    data = rows(50, 2, 20)
    with pytest.raises(ValueError, match="ages and prompt_tokens"):
        train_probe(
            ProbeRows(data.vectors, data.remaining), np.zeros(50, bool), bins=BINS, layer=1, recipe=RECIPE
        )
    with pytest.raises(ValueError, match="50 rows need 50 values of ages, got 3"):
        ProbeRows(data.vectors, data.remaining, ages=np.arange(3))


def test_training_stops_when_validation_does_not_improve_and_keeps_the_best() -> None:
    """Labels that are noise: after the first epochs only the training loss falls."""
    rng = np.random.default_rng(3)
    data = ProbeRows(rng.normal(size=(400, 6)).astype(np.float32), rng.integers(0, 40, 400))
    validation = np.arange(400) % 4 == 1
    held_out = np.arange(400) % 4 == 0
    recipe = ProbeRecipe(hidden_units=256, epochs=200, batch_size=32, patience=3)
    trained = train_probe(data, held_out, bins=BINS, layer=1, recipe=recipe, validation=validation)
    assert len(trained.training_loss) < 200
    best = int(np.argmin(trained.validation_loss))
    assert len(trained.validation_loss) == best + 4
    p = predict_rows(trained.probe, data, np.flatnonzero(validation))
    loss = -np.log(p[np.arange(len(p)), BINS.index(data.remaining[validation])]).mean()
    assert loss == pytest.approx(trained.validation_loss[best], rel=1e-3)


def test_several_answers_to_a_prompt_are_read_once_an_epoch_and_all_count() -> None:
    prompts = [[1, 2, 3]] * 30 + [[4, 5, 6]] * 30
    lengths = np.array([5] * 20 + [35] * 10 + [15] * 30)
    trained = train_prompt_predictor(prompts, lengths, np.zeros(60, dtype=np.bool_), bins=BINS, vocab_size=8)
    assert len(trained.training_loss) == 10
    small = EncoderSize(layers=1, hidden_size=32, heads=2, intermediate_size=32, max_tokens=8)
    long = train_prompt_predictor(
        prompts,
        lengths,
        np.zeros(60, dtype=np.bool_),
        bins=BINS,
        vocab_size=8,
        recipe=PromptRecipe(encoder=small, epochs=300, learning_rate=5e-3),
    )
    p = long.predictor.predict([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_allclose(p[0], [2 / 3, 0, 0, 1 / 3], atol=0.06)
    assert p[1, 1] > 0.9
