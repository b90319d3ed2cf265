"""How much worse than the best constant c, chosen in hindsight, the controller does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.control.constant import Outcome, given, served
from benchmarks.control.order import ControlledOrder, LocalControl
from benchmarks.control.settings import Setting
from trail.policy.controller import LEVELS, Objective
from trail.policy.spec import PolicySpec
from trail.report.stats import ratio_interval
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.steptime import StepTicks
from trail.simulation.engine.workload import Workload

OBJECTIVES = {"latency": Objective(1.0, 0.0), "both": Objective(1.0, 1.0), "ttft": Objective(1.0, 4.0)}


def run_controlled(setting: Setting, requests: int, seed: int) -> dict[str, Outcome]:
    """The controller with each objective, by its name, on the requests of one seed."""
    work, predictions = given(setting, requests, seed)
    spec = PolicySpec(setting.policy)
    return {
        name: controlled(setting, work, predictions, spec, objective)
        for name, objective in OBJECTIVES.items()
    }


def controlled(
    setting: Setting, work: Workload, predictions: Predictions, spec: PolicySpec, objective: Objective
) -> Outcome:
    """`spec` with c from the controller, which knows nothing beforehand."""
    engine = Engine(setting.engine, work, StepTicks.of(setting.model))
    control = LocalControl(objective)
    order = ControlledOrder(replace(spec, c=control.c), engine, predictions, control)
    return replace(served(engine, order), turns=turns(control.given), last_c=control.c)


def turns(given: Sequence[float]) -> int:
    """How often a sequence turns round."""
    moves = [b > a for a, b in pairwise(given) if a != b]
    return sum(a != b for a, b in pairwise(moves))


def value(outcome: Outcome, objective: Objective) -> float:
    """What the objective makes of it: the weighted sum, in seconds."""
    return objective.latency_weight * outcome.latency_s + objective.ttft_weight * outcome.ttft_s


def rows(setting: Setting, runs: Sequence[Mapping[str, Outcome]]) -> list[dict[str, Any]]:
    """One row of the table for each objective, from the outcomes of all seeds.

    The best constant c is the one whose objective, averaged over seeds, is least; the interval is Student's
    over seeds.
    """
    made = []
    for name, objective in OBJECTIVES.items():
        values = {c: [value(run[f"{c:g}"], objective) for run in runs] for c in LEVELS}
        best = min(LEVELS, key=lambda c: float(np.mean(values[c])))
        own = [value(run[name], objective) for run in runs]
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
