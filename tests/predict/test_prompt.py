"""The prompt predictor takes any prompt, in any batch, and comes back from disk the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.predict.bins import Bins, equal_bins
from trail.predict.encoder import EncoderSize
from trail.predict.prompt import PromptPredictor
from trail.predict.prompt_tokens import OwnTokens

VOCAB_SIZE = 20
SIZE = EncoderSize(layers=1, hidden_size=16, heads=2, intermediate_size=16, max_tokens=8)


@settings(deadline=None, max_examples=30)
@given(prompts=st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=20), max_size=40))
def test_a_prompts_prediction_does_not_depend_on_its_batch(prompts: list[list[int]]) -> None:
    predictor = PromptPredictor.untrained(VOCAB_SIZE, equal_bins(), SIZE, seed=3)
    with torch.no_grad():  # as decided as after training, or padding would hardly show
        for parameter in predictor.encoder.parameters():
            parameter.mul_(5)
    together = predictor.predict(prompts)
    assert together.shape == (len(prompts), 10)
    assert together.dtype == np.float32
    for row, prompt in zip(together, prompts, strict=True):
        np.testing.assert_allclose(row, predictor.predict([prompt])[0], atol=1e-5)
        assert row.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_long_prompt_is_read_at_both_ends_and_not_in_the_middle(prompt_predictor: PromptPredictor) -> None:
    prompt = list(range(1, 17))  # the encoder reads the first 4 and the last 4
    base = prompt_predictor.predict([prompt])

    def changed(position: int) -> bool:
        other = list(prompt)
        other[position] = 19
        return not np.array_equal(prompt_predictor.predict([other]), base)

    assert [changed(position) for position in range(16)] == [True] * 4 + [False] * 8 + [True] * 4


def test_tokens_outside_the_vocabulary_count_as_unknown(prompt_predictor: PromptPredictor) -> None:
    result = prompt_predictor.predict([[1, VOCAB_SIZE, 2], [1, 10**9, 2], [1, -1, 2]])
    np.testing.assert_allclose(result[0], result[1])
    np.testing.assert_allclose(result[0], result[2])
    assert not np.allclose(result[0], prompt_predictor.predict([[1, VOCAB_SIZE - 1, 2]])[0], atol=1e-7)


def test_it_comes_back_from_disk_the_same(
    prompt_predictor: PromptPredictor, tmp_path: Path, bins: Bins
) -> None:
    prompt_predictor.save(tmp_path / "prompt")
    again = PromptPredictor.read(tmp_path / "prompt", bins)
    prompts = [[1, 2, 3], [], [4] * 30]
    np.testing.assert_array_equal(again.predict(prompts), prompt_predictor.predict(prompts))
    assert isinstance(again.tokens, OwnTokens)
    assert again.tokens.vocab_size == VOCAB_SIZE


def test_what_is_saved_is_a_transformers_classifier(
    prompt_predictor: PromptPredictor, tmp_path: Path, bins: Bins
) -> None:
    from transformers import AutoModelForSequenceClassification

    prompt_predictor.save(tmp_path / "prompt")
    encoder = AutoModelForSequenceClassification.from_pretrained(tmp_path / "prompt", local_files_only=True)
    again = PromptPredictor(encoder, bins)
    np.testing.assert_array_equal(again.predict([[1, 2, 3]]), prompt_predictor.predict([[1, 2, 3]]))


def test_an_encoder_for_other_bins_is_refused(prompt_predictor: PromptPredictor) -> None:
    with pytest.raises(ValueError, match="4 classes, the bins are 10"):
        PromptPredictor(prompt_predictor.encoder, equal_bins())


def test_making_one_leaves_torchs_random_numbers_alone(bins: Bins) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    PromptPredictor.untrained(VOCAB_SIZE, bins, SIZE, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_a_call_between_layers_changes_no_prediction(prompt_predictor: PromptPredictor) -> None:
    before = prompt_predictor.predict([[3, 4, 5]])
    calls: list[int] = []
    prompt_predictor.call_between_layers(lambda: calls.append(1) or 7)
    assert np.array_equal(prompt_predictor.predict([[3, 4, 5]]), before)
    assert len(calls) > 5
