"""The prompt predictor learns what prompts say about length, the same way every time."""

import numpy as np
import pytest

from trail.predict.bins import equal_bins
from trail.predict.encoder import EncoderSize
from trail.predict.training.prompt_training import (
    PromptRecipe,
    TrainedPromptPredictor,
    train_prompt_predictor,
)
from trail.predict.training.split import held_out_prompts

BINS = equal_bins(4, 64.0)
SIZE = EncoderSize(layers=1, hidden_size=32, heads=2, intermediate_size=32, max_tokens=16)
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(0, 64, 400)
# The third token says which quarter the length is in; the others say nothing.
PROMPTS = [
    [*RNG.integers(5, 20, 2).tolist(), int(length // 16), *RNG.integers(5, 20, RNG.integers(1, 5)).tolist()]
    for length in LENGTHS
]
HELD_OUT = held_out_prompts(PROMPTS, 0.2)


def train(seed: int) -> TrainedPromptPredictor:
    return train_prompt_predictor(
        PROMPTS,
        LENGTHS,
        HELD_OUT,
        bins=BINS,
        vocab_size=20,
        recipe=PromptRecipe(encoder=SIZE, epochs=30, batch_size=16, learning_rate=2e-3, seed=seed),
    )


def test_it_learns_the_telling_token_and_is_judged_on_other_prompts() -> None:
    trained = train(0)
    assert trained.metrics["bin_accuracy"] > 0.9
    assert trained.metrics["rows"] == HELD_OUT.sum()
    tail = [7, 8]
    short, long = trained.predictor.predict([[9, 9, 0, *tail], [9, 9, 3, *tail]]) @ BINS.midpoints
    assert short < 20 < 44 < long


def test_the_seed_decides_the_weights_and_dropout_is_off_afterwards() -> None:
    first, second, other = train(1), train(1), train(2)
    probabilities = [trained.predictor.predict(PROMPTS[:20]) for trained in (first, second, other)]
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    assert first.training_loss == second.training_loss
    assert not np.array_equal(probabilities[0], probabilities[2])
    np.testing.assert_array_equal(first.predictor.predict(PROMPTS[:20]), probabilities[0])


def test_lengths_that_do_not_fit_the_prompts_are_named() -> None:
    with pytest.raises(ValueError, match="400 rows need 400 lengths"):
        train_prompt_predictor(PROMPTS, LENGTHS[:-1], HELD_OUT, bins=BINS, vocab_size=20)
