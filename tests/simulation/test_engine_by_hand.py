"""First come, first served on examples small enough to be worked out by hand, as vLLM would serve them."""

import numpy as np
import pytest

from trail.policy.spec import PolicySpec
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.steptime import StepModel, StepTicks
from trail.simulation.engine.workload import Workload
from trail.simulation.run import make_order

SECOND = 10**15


def serve(config: EngineConfig, requests: list[tuple[float, int, int]], model: StepModel) -> Engine:
    at, prompt, output = (np.array(column) for column in zip(*requests, strict=True))
    engine = Engine(config, Workload(at.astype(float), prompt, output), StepTicks.of(model), trace=True)
    engine.run(make_order(PolicySpec("fcfs"), engine, None))
    return engine


def test_slots_are_taken_in_order_of_arrival() -> None:
    # Steps of 1 s. A and B start at 0; A has its 3 tokens after 3 steps, B its 5 after 5. C, there at 0 as
    # well, gets A's slot with the step that starts at 3; D gets C's, which ends at 5, together with B's.
    engine = serve(
        EngineConfig(slots=2, token_budget=100),
        [(0.0, 4, 3), (0.0, 4, 5), (0.0, 4, 2), (0.5, 4, 1)],
        StepModel("1 s", 1.0, 0.0, 0.0, 0.0),
    )
    assert [t // SECOND for t in engine.journal.first_token] == [1, 1, 4, 6]
    assert [t // SECOND for t in engine.journal.end] == [3, 5, 5, 6]


def test_a_prompt_is_cut_to_the_budget() -> None:
    # Budget 4: A's prompt of 4 fills step 1. In step 2 A takes 1 token, B's prompt of 6 gets 3; in step 3 A
    # takes 1 and B its last 3: first token after step 3.
    engine = serve(
        EngineConfig(slots=2, token_budget=4),
        [(0.0, 4, 5), (0.0, 6, 2)],
        StepModel("by tokens", 1.0, 0.5, 0.25, 0.0),
    )
    assert engine.journal.steps is not None
    assert [(s.decoding, s.prefill_tokens) for s in engine.journal.steps] == [
        (0, 4),
        (1, 3),
        (1, 3),
        (2, 0),
        (1, 0),
    ]
    # 1 + 4/4 = 2; 1 + 1/2 + 3/4 = 2.25 twice; 1 + 2/2 = 2; 1 + 1/2 = 1.5.
    assert [s.end / SECOND for s in engine.journal.steps] == [2.0, 4.25, 6.5, 8.5, 10.0]
    assert [t / SECOND for t in engine.journal.first_token] == [2.0, 6.5]
    assert [t / SECOND for t in engine.journal.end] == [10.0, 8.5]


def test_the_last_one_running_loses_its_blocks_and_computes_again() -> None:
    # Blocks of 2, 5 of them. A (prompt 4, 5 tokens) and B (prompt 4, 2 tokens): 2 blocks each after step 1.
    # Step 2 feeds in the fifth token of each: A takes the last block, B none: B is preempted, and nobody is
    # started in that step. Now 2 free blocks; B knows 5 tokens, needs 3. A takes its fourth block for its
    # seventh token in step 4 and ends with step 5, at which it has 8 tokens computed. In step 6 B starts
    # again: with the prefix cache its first blocks are still there, one of them taken by A meanwhile.
    requests = [(0.0, 4, 5), (0.0, 4, 2)]
    model = StepModel("1 s", 1.0, 0.0, 0.0, 0.0)
    for prefix_cache, recomputed in ((False, 4), (True, 2)):
        engine = serve(
            EngineConfig(slots=2, token_budget=100, kv_blocks=5, block_tokens=2, prefix_cache=prefix_cache),
            requests,
            model,
        )
        journal = engine.journal
        assert [t // SECOND for t in journal.end] == [5, 6]
        assert journal.memory_preemptions == [0, 1]
        assert journal.recomputed == [0, recomputed]
        assert journal.max_gap[1] == 5 * SECOND


def test_what_comes_and_ends_is_seen_a_step_later_with_asynchronous_scheduling() -> None:
    # A: steps of 1 s from 0 on, ends after step 2. B comes at 0.5 and needs the only slot. Step 3 still has A
    # in it; B starts with step 4.
    engine = serve(
        EngineConfig(slots=1, token_budget=100, async_scheduling=True),
        [(0.0, 4, 2), (0.5, 4, 2)],
        StepModel("1 s", 1.0, 0.0, 0.0, 0.0),
    )
    assert [t // SECOND for t in engine.journal.first_token] == [1, 4]
    assert [t // SECOND for t in engine.journal.end] == [2, 5]
    assert engine.journal.count.wasted_tokens == 1


def test_a_request_beyond_the_cache_is_refused() -> None:
    model = StepModel("1 s", 1.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="request 1 needs 6 KV blocks for 12 tokens, the engine has 5"):
        serve(EngineConfig(kv_blocks=5, block_tokens=2), [(0.0, 2, 2), (0.0, 8, 4)], model)
    with pytest.raises(ValueError, match="token budget must hold a whole request: request 0 has 12"):
        serve(EngineConfig(token_budget=11, chunked_prefill=False), [(0.0, 8, 4)], model)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slots", 0),
        ("token_budget", 0),
        ("block_tokens", 0),
        ("kv_blocks", 0),
        ("prediction_lag", -1),
        ("initial_lag", -1),
    ],
)
def test_limits_that_no_engine_has_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        EngineConfig(**{field: value})
