"""The simulator against the slow engine of `reference`: the same steps, times and counts."""

from dataclasses import replace

import numpy as np
from generated import POLICIES, cases, tight_cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import ReferenceEngine

from trail.policy.spec import parse_policy
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.steptime import StepTicks
from trail.simulation.engine.workload import Workload
from trail.simulation.run import make_order

Case = tuple[Workload, EngineConfig, StepTicks, Predictions]


def served(case: Case, policy: str, *, jumps: bool) -> Engine:
    work, config, ticks, predictions = case
    engine = Engine(replace(config, jumps=jumps), work, ticks, trace=True)
    engine.run(make_order(parse_policy(policy), engine, predictions))
    return engine


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases() | tight_cases(), st.sampled_from(POLICIES))
def test_the_same_steps_as_the_reference(case: Case, policy: str) -> None:
    work, config, ticks, predictions = case
    reference = ReferenceEngine(config, work, ticks, parse_policy(policy), predictions)
    reference.run()
    engine = served(case, policy, jumps=False)
    journal = engine.journal
    assert journal.steps is not None
    assert [
        (s.start, s.end, s.decoding, s.prefill_tokens, s.running, s.used_blocks) for s in journal.steps
    ] == reference.steps
    assert journal.first_token == [r.token_times[0] for r in reference.requests]
    assert journal.end == [r.token_times[-1] for r in reference.requests]
    gaps = [int(np.diff(r.token_times).max()) if r.output > 1 else 0 for r in reference.requests]
    assert journal.max_gap == gaps
    assert journal.started == [r.started for r in reference.requests]
    assert journal.recomputed == [r.recomputed for r in reference.requests]
    assert journal.policy_preemptions == [r.gave_way for r in reference.requests]
    count = journal.count
    assert count.policy_preemptions == reference.policy_preemptions
    assert count.memory_preemptions == reference.memory_preemptions
    assert count.denied == len(reference.denied)
    assert count.computed_tokens == reference.computed_tokens
    assert count.generated_tokens == reference.generated
    assert count.wasted_tokens == reference.wasted


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(most=25, longest=80) | tight_cases(), st.sampled_from(POLICIES))
def test_steps_taken_together_change_nothing(case: Case, policy: str) -> None:
    single, together = served(case, policy, jumps=False), served(case, policy, jumps=True)
    a, b = vars(single.journal), vars(together.journal)
    for name in ("first_token", "end", "started", "max_gap", "policy_preemptions", "memory_preemptions",
                 "recomputed", "count"):  # fmt: skip
        assert a[name] == b[name], name
    assert together.now == single.now
    assert single.journal.steps is not None
    assert together.journal.steps is not None
    assert len(single.journal.steps) == sum(s.steps for s in together.journal.steps)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(most=25, longest=80) | tight_cases(), st.sampled_from(POLICIES))
def test_nothing_is_lost_and_nothing_overflows(case: Case, policy: str) -> None:
    work, config, _, _ = case
    engine = served(case, policy, jumps=True)
    journal, count = engine.journal, engine.journal.count
    arrival = np.round(work.arrival_s * 1e15)
    first, end = np.array(journal.first_token), np.array(journal.end)
    assert (first > arrival).all()
    assert (end[work.output_tokens > 1] > first[work.output_tokens > 1]).all()
    assert count.generated_tokens == work.output_tokens.sum()
    once = int((work.prompt_tokens + work.output_tokens - 1).sum())
    assert count.computed_tokens == once + count.recomputed_tokens
    assert count.recomputed_tokens == sum(journal.recomputed)
    assert journal.steps is not None
    for step in journal.steps:
        assert 0 <= step.used_blocks <= engine.capacity_blocks
        assert len(step.running) <= config.slots
        assert step.prefill_tokens + step.decoding <= config.token_budget
    held = sum(full + part for full, part in engine._ended)
    assert engine.blocks.free + held == engine.capacity_blocks


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["trail-c0", "oracle-c0", "sjf", "fcfs"]))
def test_nothing_that_runs_gives_way_to_another_with_c_0(case: Case, policy: str) -> None:
    count = served(case, policy, jumps=True).journal.count
    assert count.policy_preemptions == 0


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(POLICIES))
def test_the_same_again(case: Case, policy: str) -> None:
    assert served(case, policy, jumps=True).journal.end == served(case, policy, jumps=True).journal.end
