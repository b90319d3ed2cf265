"""The batched sampler draws from the model's own distribution, and hidden states are the generating ones."""

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.demo_model import sampling, train_model
from trail.demo import corpus
from trail.demo.tokenizer import EOS_ID

SHAPE = train_model.ModelShape(hidden_size=64, layers=3, heads=2, kv_heads=1, intermediate_size=96)


@pytest.fixture(scope="module")
def model() -> Any:
    return train_model.build_model(SHAPE, seed=2).eval()


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    return [prompt.token_ids for prompt in corpus.demo_prompts(60, seed=9)]


def test_the_same_seed_gives_the_same_answers(model: Any, prompts: list[tuple[int, ...]]) -> None:
    first = sampling.sample_answers(model, prompts, seed=1, max_tokens=40)
    assert first == sampling.sample_answers(model, prompts, seed=1, max_tokens=40)
    assert first != sampling.sample_answers(model, prompts, seed=2, max_tokens=40)
    assert [s.prompt for s in first] == prompts


def test_an_answer_stops_at_its_first_end_token_or_at_the_limit(
    model: Any, prompts: list[tuple[int, ...]]
) -> None:
    for drawn in sampling.sample_answers(model, prompts, seed=3, max_tokens=300):
        assert drawn.ended == (drawn.output[-1] == EOS_ID)
        assert EOS_ID not in drawn.output[:-1]
        assert drawn.ended or len(drawn.output) == 300


def test_the_first_token_follows_the_models_probabilities(model: Any) -> None:
    prompt = corpus.demo_prompts(1, seed=4)[0].token_ids
    drawn = sampling.sample_answers(model, [prompt] * 4000, seed=8, max_tokens=1)
    with torch.inference_mode():
        expected = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1], dim=0).numpy()
    counts = np.bincount([s.output[0] for s in drawn], minlength=len(expected))
    statistic = float((((counts - 4000 * expected) ** 2) / (4000 * expected)).sum())
    degrees = len(expected) - 1
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)


def test_hidden_states_are_those_of_generating_token_by_token(
    model: Any, prompts: list[tuple[int, ...]]
) -> None:
    drawn = sampling.sample_answers(model, prompts[:7], seed=5, max_tokens=30)
    states = sampling.hidden_states(model, drawn, (1, 2))
    for layer in (1, 2):
        recorded = states[layer]
        assert recorded.lengths.tolist() == [len(one.output) for one in drawn]
        for index, one in enumerate(drawn):
            rows = slice(recorded.offsets[index], recorded.offsets[index + 1])
            assert recorded.ages[rows].tolist() == list(range(len(one.output)))
            with torch.inference_mode():
                out = model(input_ids=torch.tensor([one.prompt]), use_cache=True, output_hidden_states=True)
                expected = [out.hidden_states[layer][0].mean(0)]
                for token in one.output[:-1]:
                    out = model(
                        input_ids=torch.tensor([[token]]),
                        past_key_values=out.past_key_values,
                        output_hidden_states=True,
                    )
                    expected.append(out.hidden_states[layer][0, 0])
            np.testing.assert_allclose(recorded.vectors[rows], torch.stack(expected).numpy(), atol=1e-5)
