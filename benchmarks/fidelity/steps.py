"""Step times for every run of a benchmark: one fit a server, and how fast the machine was in each run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trail.bench.config import STOCK
from trail.simulation.engine.steptime import COEFFICIENTS, StepModel, StepModelError
from trail.simulation.fit import FitError, Marks, fit_steps, intervals, run_marks

Run = Mapping[str, Any]


@dataclass(frozen=True)
class ServerSteps:
    """Step times of one server, stock or with TRAIL, over all loads; `slowness` of each run without
    preemption, by load, repeat and arm: its measured time over that of the model."""

    model: StepModel
    error: FitError
    slowness: Mapping[tuple[str, int, str], float]

    def of(self, load: str, run: Run) -> StepModel:
        """The model of one run.

        A run with preemptions, whose own token times do not tell, is taken to be as slow as the others of
        its load and repeat.
        """
        own = self.slowness.get((load, run["repeat"], run["arm"]))
        if own is not None:
            return self.model.slower(own)
        near = [
            value for (at, repeat, _), value in self.slowness.items() if (at, repeat) == (load, run["repeat"])
        ]
        return self.model.slower(float(np.mean(near))) if near else self.model


def server_of(arm: str) -> str:
    """The server that an arm runs on."""
    return "stock" if arm == STOCK else "trail"


def server_steps(loads: Mapping[str, Mapping[str, Any]]) -> dict[str, ServerSteps]:
    """From the results of each load, by server. Raises StepModelError where there is too little to fit."""
    marks: dict[str, dict[tuple[str, int, str], Marks]] = {}
    for load, run in _without_preemption(loads):
        marks.setdefault(server_of(run["arm"]), {})[load, run["repeat"], run["arm"]] = run_marks(run)
    wanted = {server_of(arm) for results in loads.values() for arm in results["arms"]}
    for server in sorted(wanted - marks.keys()):
        raise StepModelError(
            f"every run of the {server} server preempted: its step times cannot be told; add an arm that"
            " never preempts, such as trail-c0"
        )
    found = {}
    for server, runs in marks.items():
        model, error = fit_steps(runs.values(), server)
        found[server] = ServerSteps(model, error, {key: slowness(model, run) for key, run in runs.items()})
    return found


def slowness(model: StepModel, marks: Marks) -> float:
    """Time between the tokens of a run over what the model makes of it."""
    sums, seconds = intervals(marks, model.prefill_token_s)
    return float(seconds.sum() / (sums @ [getattr(model, name) for name in COEFFICIENTS]).sum())


def _without_preemption(loads: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, Run]]:
    for load, results in loads.items():
        for run in (run for arm in results["arms"].values() for run in arm["runs"]):
            if not run["engine"]["preemptions"]:
                yield load, run
