"""What holds of every policy: work is conserved, and memory is taken from the unprotected first."""

from dataclasses import replace

import numpy as np
from generated import POLICIES, cases, tight_cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trail.policy import decide
from trail.policy.spec import parse_policy
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.run import make_order

NO_RESERVE = [name for name in (*POLICIES, "adaptive-reserveoff") if parse_policy(name).kv_reserve_tokens < 0]
PREEMPTING = tuple(name for name in POLICIES if parse_policy(name).preempts)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(most=25, longest=80), st.sampled_from(NO_RESERVE))
def test_work_is_conserved(case: tuple, policy: str) -> None:
    """With memory enough, a step leaves a slot empty only where nobody waits or its budget is used up."""
    work, config, ticks, predictions = case
    config = replace(config, kv_blocks=None, chunked_prefill=True, async_scheduling=False, jumps=False)
    engine = Engine(config, work, ticks, trace=True)
    engine.run(make_order(parse_policy(policy), engine, predictions))
    steps = engine.journal.steps
    assert steps
    arrival = np.array([round(t * 1e15) for t in work.arrival_s.tolist()])
    end = np.array(engine.journal.end)
    free_at = 0
    for step in steps:
        open_then = int(((arrival <= step.start) & (end > step.start)).sum())
        used = step.decoding + step.prefill_tokens
        assert used > 0
        assert len(step.running) == min(config.slots, open_then) or used == config.token_budget
        if step.start > free_at:  # nobody was there when the step before it ended
            assert not ((arrival <= free_at) & (end > free_at)).any()
        free_at = step.end


class Watched(RankedOrder):
    """Looks, whenever a request loses its memory, at who keeps it."""

    lost_to_memory = 0

    def lost(self, request: int) -> None:
        super().lost(request)
        engine = self._engine
        self.lost_to_memory += 1
        if not self._protects(request, engine.age[request]):
            return
        assert all(self._protects(r, engine.age_of(r)) for r in engine.running)

    def _protects(self, request: int, age: int) -> bool:
        return bool(
            decide.is_protected(
                np.array([True]),
                np.array([age]),
                self._rows.cutoff[[request]],
                self._engine.gave_way[[request]],
                self._terms.max_preemptions,
            )[0]
        )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tight_cases(), st.sampled_from(PREEMPTING))
def test_no_protected_request_loses_its_memory_while_a_preemptible_one_runs(case: tuple, policy: str) -> None:
    work, config, ticks, predictions = case
    engine = Engine(config, work, ticks)
    order = Watched(parse_policy(policy), engine, predictions)
    engine.run(order)
    assert order.lost_to_memory == engine.journal.count.memory_preemptions
