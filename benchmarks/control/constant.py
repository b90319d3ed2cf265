"""A simulated scheduler with one c from beginning to end. Knows nothing of the controller."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.control.settings import Setting
from trail.policy.spec import PolicySpec
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.order import Order
from trail.simulation.engine.predictors import Lognormal, Predictions
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.engine.steptime import TICKS_PER_S, StepTicks
from trail.simulation.engine.workload import Workload

EVERY_TOKENS = 10


@dataclass(frozen=True)
class Outcome:
    """Means of one run in seconds, the share of recomputed tokens, how often c turned round, and the last c
    (None: it stood still)."""

    latency_s: float
    ttft_s: float
    recomputed_share: float
    turns: int = 0
    last_c: float | None = None


def run_constants(setting: Setting, requests: int, seed: int, levels: Sequence[float]) -> dict[str, Outcome]:
    """Each c of `levels`, by its number, on the requests of one seed."""
    work, predictions = given(setting, requests, seed)
    spec = PolicySpec(setting.policy)
    return {f"{c:g}": constant(setting, work, predictions, replace(spec, c=c)) for c in levels}


def given(setting: Setting, requests: int, seed: int) -> tuple[Workload, Predictions]:
    """The requests of one seed, and what is predicted of them."""
    work = setting.workload(requests, seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x52]))
    return work, Lognormal().predict(work, EVERY_TOKENS, rng)


def constant(setting: Setting, work: Workload, predictions: Predictions, spec: PolicySpec) -> Outcome:
    """`spec` from beginning to end."""
    engine = Engine(setting.engine, work, StepTicks.of(setting.model))
    return served(engine, RankedOrder(spec, engine, predictions))


def served(engine: Engine, order: Order) -> Outcome:
    """What comes of it."""
    engine.run(order)
    journal, arrival_s = engine.journal, engine.work.arrival_s
    end, first = (np.array(ticks, np.float64) / TICKS_PER_S for ticks in (journal.end, journal.first_token))
    return Outcome(
        float((end - arrival_s).mean()),
        float((first - arrival_s).mean()),
        journal.count.recomputed_tokens / journal.count.computed_tokens,
    )
