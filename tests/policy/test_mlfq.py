"""Levels of skip-join MLFQ against a request that is served iteration by iteration."""

from hypothesis import given
from hypothesis import strategies as st

from trail.policy.mlfq import FIRST_QUANTUM, LEVELS, PROMPT_SHARE, level


def slow_level(prompt: int, age: int) -> int:
    first = max(prompt * PROMPT_SHARE, 1.0)
    queue = 0
    while queue < LEVELS - 1 and FIRST_QUANTUM * 2**queue < first:
        queue += 1
    used = 0.0
    for iteration in range(age):
        used += first if iteration == 0 else 1.0
        while queue < LEVELS - 1 and used >= FIRST_QUANTUM * 2**queue:
            used -= FIRST_QUANTUM * 2**queue
            queue += 1
    return queue


# Prompts of whole tens, whose cost is a whole number: both ways of counting then are exact.
@given(st.lists(st.tuples(st.integers(0, 3000).map(lambda n: 10 * n), st.integers(0, 3000)), max_size=6))
def test_levels_are_those_of_the_slow_reference(requests: list[tuple[int, int]]) -> None:
    prompts, ages = [row[0] for row in requests], [row[1] for row in requests]
    assert level(prompts, ages).tolist() == [slow_level(*row) for row in requests]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**4))
def test_a_request_only_ever_moves_down(prompt: int, age: int, more: int) -> None:
    before, after = level([prompt, prompt], [age, age + more]).tolist()
    assert 0 <= before <= after <= LEVELS - 1


def test_a_long_prompt_skips_the_queues_whose_quantum_it_would_exceed() -> None:
    assert level([10, 160, 170, 320, 10**9], [0] * 5).tolist() == [0, 0, 1, 1, LEVELS - 1]
    # A first iteration that takes the whole quantum is followed by the next queue.
    assert level([10, 160, 170], [1] * 3).tolist() == [0, 1, 1]
