"""The guard of the tail, in the engine: how long a request can be passed over."""

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.policy.guard import overtake_bound
from trail.policy.ranks import Terms
from trail.policy.spec import parse_policy
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.ranked import RankedOrder


class Watched(RankedOrder):
    """Remembers the terms of every step."""

    def before(self) -> None:
        super().before()
        self.seen = {*getattr(self, "seen", ()), self._terms}


@settings(max_examples=150, deadline=None)
@given(
    cases(most=25, longest=80),
    st.sampled_from(["adaptive", "adaptive-c1-k4", "adaptive-c1-k0.5-ratio1-limitoff"]),
)
def test_nobody_who_comes_later_than_the_bound_is_started_before(case: tuple, policy: str) -> None:
    work, config, ticks, predictions = case
    engine = Engine(config, work, ticks)
    order = Watched(parse_policy(policy), engine, predictions)
    engine.run(order)
    bound = max(_bound(terms) for terms in order.seen)
    by_start = np.argsort(engine.journal.started)
    latest_before = np.maximum.accumulate(work.arrival_s[by_start])
    assert (latest_before - work.arrival_s[by_start] <= bound + 1e-9).all()


def _bound(terms: Terms) -> float:
    return overtake_bound(terms.kappa, terms.wait_s, terms.scale)


@settings(max_examples=60, deadline=None)
@given(cases(most=25, longest=80))
def test_kappa_0_starts_in_order_of_arrival(case: tuple) -> None:
    work, config, ticks, predictions = case
    engine = Engine(config, work, ticks)
    engine.run(RankedOrder(parse_policy("adaptive-c1-k0"), engine, predictions))
    assert engine.journal.started == sorted(engine.journal.started)


@pytest.mark.parametrize("policy", ["sjf", "trail-c0.5", "trail-prompt", "oracle", "adaptive"])
def test_equal_requests_are_served_first_come_first_served(policy: str) -> None:
    from trail.simulation.engine.config import EngineConfig
    from trail.simulation.engine.predictors import Exact
    from trail.simulation.engine.steptime import PRESETS
    from trail.simulation.engine.workload import Workload
    from trail.simulation.run import simulate

    n = 60
    work = Workload(np.arange(n) * 0.01, np.full(n, 40), np.full(n, 50))
    predictions = Exact().predict(work, 50, np.random.default_rng(0))
    results = [
        simulate(EngineConfig(slots=4), PRESETS["h200-8b"], work, parse_policy(name), predictions)
        for name in ("fcfs", policy)
    ]
    assert (results[0].latency_s == results[1].latency_s).all()
