"""How much worse than the best constant c, chosen in hindsight, the controller does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.control.order import ControlledOrder, LocalControl
from benchmarks.control.settings import OBJECTIVES, Setting
from trail.policy.controller import LEVELS, Objective
from trail.policy.spec import PolicySpec
from trail.report.stats import ratio_interval
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.order import Order
from trail.simulation.engine.predictors import Lognormal, Predictions
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.engine.steptime import TICKS_PER_S, StepTicks
from trail.simulation.engine.workload import Workload

EVERY_TOKENS = 10
CONSTANT, CONTROLLED = "constant", "controlled"
PARTS = (CONSTANT, CONTROLLED)


@dataclass(frozen=True)
class Outcome:
    """Means of one run in seconds, the share of recomputed tokens, how often c turned round, and the last c
    (None: it stood still)."""

    latency_s: float
    ttft_s: float
    recomputed_share: float
    turns: int = 0
    last_c: float | None = None

    def value(self, objective: Objective) -> float:
        """What the objective makes of it: the weighted sum, in seconds."""
        return objective.latency_weight * self.latency_s + objective.ttft_weight * self.ttft_s


def run_seed(setting: Setting, requests: int, seed: int, parts: Sequence[str] = PARTS) -> dict[str, Outcome]:
    """All arms of `parts` on the requests of one seed: each level of c by its number, each objective by its
    name."""
    work = setting.workload(requests, seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x52]))
    predictions = Lognormal().predict(work, EVERY_TOKENS, rng)
    spec = PolicySpec(setting.policy)
    outcomes: dict[str, Outcome] = {}
    if CONSTANT in parts:
        for c in LEVELS:
            outcomes[f"{c:g}"] = constant(setting, work, predictions, replace(spec, c=c))
    if CONTROLLED in parts:
        for name, objective in OBJECTIVES.items():
            outcomes[name] = controlled(setting, work, predictions, spec, objective)
    return outcomes


def constant(setting: Setting, work: Workload, predictions: Predictions, spec: PolicySpec) -> Outcome:
    """`spec` from beginning to end."""
    engine = Engine(setting.engine, work, StepTicks.of(setting.model))
    return _served(engine, RankedOrder(spec, engine, predictions))


def controlled(
    setting: Setting, work: Workload, predictions: Predictions, spec: PolicySpec, objective: Objective
) -> Outcome:
    """`spec` with c from the controller, which knows nothing beforehand."""
    engine = Engine(setting.engine, work, StepTicks.of(setting.model))
    control = LocalControl(objective)
    order = ControlledOrder(replace(spec, c=control.c), engine, predictions, control)
    return replace(_served(engine, order), turns=turns(control.given), last_c=control.c)


def turns(given: Sequence[float]) -> int:
    """How often a sequence turns round."""
    moves = [b > a for a, b in pairwise(given) if a != b]
    return sum(a != b for a, b in pairwise(moves))


def _served(engine: Engine, order: Order) -> Outcome:
    engine.run(order)
    journal, arrival_s = engine.journal, engine.work.arrival_s
    end, first = (np.array(ticks, np.float64) / TICKS_PER_S for ticks in (journal.end, journal.first_token))
    return Outcome(
        float((end - arrival_s).mean()),
        float((first - arrival_s).mean()),
        journal.count.recomputed_tokens / journal.count.computed_tokens,
    )


def rows(setting: Setting, runs: Sequence[Mapping[str, Outcome]]) -> list[dict[str, Any]]:
    """One row of the table for each objective, from the outcomes of all seeds.

    The best constant c is the one whose objective, averaged over seeds, is least; the interval is Student's
    over seeds.
    """
    made = []
    for name, objective in OBJECTIVES.items():
        values = {c: [run[f"{c:g}"].value(objective) for run in runs] for c in LEVELS}
        best = min(LEVELS, key=lambda c: float(np.mean(values[c])))
        own = [run[name].value(objective) for run in runs]
        ratio = ratio_interval(own, values[best])
        made.append(
            {
                "name": f"{setting.name}; {name}",
                "objective": {"latency": objective.latency_weight, "ttft": objective.ttft_weight},
                "regret": float(np.mean(own) / np.mean(values[best]) - 1),
                "regret_interval": None if ratio.low is None else [ratio.low - 1, (ratio.high or 0.0) - 1],
                "best_c": best,
                "objective_s": {"controller": float(np.mean(own)), "best": float(np.mean(values[best]))},
                "constant": {
                    f"{c:g}": float(np.mean(v) / np.mean(values[best]) - 1) for c, v in values.items()
                },
                "latency_s": float(np.mean([run[name].latency_s for run in runs])),
                "ttft_s": float(np.mean([run[name].ttft_s for run in runs])),
                "recomputed_share": float(np.mean([run[name].recomputed_share for run in runs])),
                "turns": [run[name].turns for run in runs],
                "last_c": [run[name].last_c for run in runs],
            }
        )
    return made
