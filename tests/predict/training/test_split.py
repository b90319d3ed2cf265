"""The split goes by the prompt's tokens alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.predict.training.split import held_out_prompts

PROMPTS = st.lists(st.lists(st.integers(0, 200_000), max_size=6), max_size=30)


@given(prompts=PROMPTS, seed=st.integers(-(2**63), 2**63 - 1))
def test_equal_prompts_fall_on_the_same_side_in_any_order(prompts: list[list[int]], seed: int) -> None:
    forward = held_out_prompts(prompts, 0.4, seed)
    backward = held_out_prompts([tuple(prompt) for prompt in reversed(prompts)], 0.4, seed)
    assert forward.dtype == np.bool_
    assert forward.tolist() == backward.tolist()[::-1]
    side = {tuple(prompt): held for prompt, held in zip(prompts, forward, strict=True)}
    assert [side[tuple(prompt)] for prompt in prompts] == forward.tolist()


def test_the_share_is_about_what_was_asked_for_and_the_seed_changes_who() -> None:
    prompts = [[i, i + 1] for i in range(20_000)]
    first, second = held_out_prompts(prompts, 0.1, 0), held_out_prompts(prompts, 0.1, 1)
    assert first.mean() == pytest.approx(0.1, abs=0.01)
    assert second.mean() == pytest.approx(0.1, abs=0.01)
    assert (first & second).mean() == pytest.approx(0.01, abs=0.005)


def test_a_share_of_nothing_holds_nothing_out_and_one_of_all_is_refused() -> None:
    assert not held_out_prompts([[1], [2]], 0.0).any()
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        held_out_prompts([[1]], 1.0)
