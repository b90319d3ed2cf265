"""The demo language: reproducible, closed over its vocabulary, and of the length distribution promised."""

import re

import numpy as np
import pytest

from benchmarks.demo_model.sampling import length_statistics
from trail.demo import corpus, words


def _documents(n: int, seed: int) -> list[tuple[corpus.Instruction, str]]:
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n):
        instruction = corpus.draw_instruction(rng)
        drawn.append((instruction, corpus.draw_answer(rng, instruction)))
    return drawn


def test_the_same_seed_gives_the_same_documents() -> None:
    assert _documents(50, 3) == _documents(50, 3)
    assert _documents(50, 3) != _documents(50, 4)


def test_every_word_is_in_the_vocabulary() -> None:
    known = set(corpus.vocabulary())
    for instruction, answer in _documents(400, 5):
        assert set(instruction.text.split()) <= known
        assert set(answer.split()) <= known


def test_an_answer_has_the_parts_its_plan_announces() -> None:
    for instruction, answer in _documents(300, 6):
        plan = re.match(r"this (\w+) has (\w+) (short|medium|long) (\w+) \.", answer)
        assert plan is not None
        assert plan[1] == instruction.kind.name
        announced = words.NUMBERS.index(plan[2]) + 1
        headers = re.findall(rf"{instruction.kind.unit} (\w+) of (\w+) :", answer)
        assert headers == [(words.NUMBERS[i], plan[2]) for i in range(announced)]
        assert answer.endswith("the end .")


def test_adjectives_follow_the_number_of_parts_to_come() -> None:
    for _, answer in _documents(300, 8):
        parts = re.split(r"\w+ \w+ of \w+ :", answer)[1:]
        for left, part in enumerate(reversed(parts)):
            row = 0 if left == 0 else 1 if left == 1 else 2 if left <= 3 else 3 if left <= 6 else 4
            others = {word for i, mood in enumerate(words.ADJECTIVES) if i != row for word in mood}
            assert not others & set(part.split())


def test_prompts_are_8_to_40_tokens() -> None:
    prompts = corpus.demo_prompts(2000, seed=11)
    assert all(8 <= len(prompt.token_ids) <= 40 for prompt in prompts)
    assert {prompt.kind for prompt in prompts} == {kind.name for kind in corpus.KINDS}


def test_demo_prompts_are_reproducible_and_a_longer_list_begins_with_the_shorter() -> None:
    assert corpus.demo_prompts(20, seed=1) == corpus.demo_prompts(60, seed=1)[:20]
    assert corpus.demo_prompts(20, seed=1) != corpus.demo_prompts(20, seed=2)


def test_lengths_have_the_promised_mean_spread_and_predictability() -> None:
    rng = np.random.default_rng(12)
    instructions = [corpus.draw_instruction(rng) for _ in range(1500)]
    lengths = [[len(corpus.draw_answer(rng, i).split()) + 1 for _ in range(4)] for i in instructions]
    statistics = length_statistics(lengths, ended_share=1.0)
    assert statistics.mean_tokens >= 105
    assert statistics.scv >= 0.75
    assert 0.5 <= statistics.prompt_r2 <= 0.68
    assert statistics.max_tokens <= 540
    assert np.mean(np.asarray(lengths) >= 512) <= 0.002


def test_statistics_do_not_count_sampling_noise_as_explained() -> None:
    rng = np.random.default_rng(13)
    unrelated = rng.exponential(100, size=(4000, 2))
    assert length_statistics(unrelated, 1.0).prompt_r2 == pytest.approx(0.0, abs=0.06)
    prompts = rng.normal(200, 30, size=(4000, 1))
    half = prompts + rng.normal(0, 30, size=(4000, 3))
    statistics = length_statistics(half, 1.0)
    assert statistics.prompt_r2 == pytest.approx(0.5, abs=0.04)
    assert statistics.scv == pytest.approx(2 * 900 / 200**2, rel=0.1)


def test_statistics_refuse_a_single_sample_a_prompt() -> None:
    with pytest.raises(ValueError, match="at least 2 prompts with 2 samples"):
        length_statistics(np.ones((5, 1)), 1.0)
