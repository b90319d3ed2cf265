"""The grid on which closed form and simulation are compared, and what became of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.closed_form.laws import (
    Binned,
    Case,
    Empirical,
    Exponential,
    ExponentialError,
    Lengths,
    Lognormal,
    Noisy,
    Perfect,
    Predictions,
)
from trail.simulation.plan.mg1 import LimitedPreemption
from trail.simulation.plan.queue_sim import response_times
from trail.simulation.plan.replicate import Effort, controlled_mean, expected_controls, replicate

Floats = NDArray[np.float64]

CS = (0.01, 0.2, 0.5, 0.8, 1.0)
LOADS = (0.5, 0.6, 0.7, 0.8, 0.9)
EFFORT = Effort(requests=200_000, margin=20_000)


@dataclass(frozen=True)
class Group:
    """Cells that share their requests: one law at one load, every c."""

    lengths_name: str
    predictions_name: str
    lengths: Lengths
    predictions: Predictions
    load: float

    @property
    def case(self) -> Case:
        """Lengths and predictions."""
        return Case(self.lengths, self.predictions)


def groups(empirical_name: str, empirical: Empirical, loads: Sequence[float] = LOADS) -> list[Group]:
    """Every kind of lengths with every kind of predictions at every load, and the paper's example.

    Bins are the paper's: ten over 0 to 512 tokens where answers have 100 in the mean.
    """
    found = []
    named: dict[str, Lengths] = {
        "exponential": Exponential(),
        "lognormal": Lognormal(1.0),
        empirical_name: empirical,
    }
    for name, lengths in named.items():
        kinds: dict[str, Predictions] = {
            "perfect": Perfect(),
            "noisy": Noisy(0.6),
            "binned": Binned(10, 5.12 * lengths.mean, 0.35),
        }
        if name == "exponential":
            kinds["exponential error"] = ExponentialError()
        found += [Group(name, kind, lengths, p, load) for kind, p in kinds.items() for load in loads]
    return found


def run_replication(group: Group, seed: Sequence[int], effort: Effort = EFFORT) -> tuple[Floats, Floats]:
    """Mean response time for every c, float64 [5], and the controls, float64 [4], of one replication."""
    arms = {str(c): partial(response_times, c=c) for c in CS}
    found = replicate(group.case, group.load, arms, seed=seed, effort=effort)
    return np.array([values.mean() for values in found.responses.values()]), found.controls


def closed_forms(group: Group) -> Floats:
    """The closed form's mean response time for every c, float64 [5]."""
    rate = group.load / group.lengths.mean
    return np.array(
        [queue.law.mean(queue.times(rate)) for queue in _queues(group.lengths, group.predictions)]
    )


def cells(
    group: Group, replications: Sequence[tuple[Floats, Floats]], effort: Effort = EFFORT
) -> list[dict[str, Any]]:
    """What `closed_form.json` says of a group, a cell for every c."""
    values = np.array([means for means, _ in replications])
    controls = np.array([known for _, known in replications])
    expected = expected_controls(group.case, group.load)
    found = []
    for column, (c, closed) in enumerate(zip(CS, closed_forms(group).tolist(), strict=True)):
        mean = controlled_mean(values[:, column], controls, expected)
        found.append(
            {
                "lengths": group.lengths_name,
                "predictions": group.predictions_name,
                "load": group.load,
                "c": c,
                "closed_form": closed,
                "simulated": mean.value,
                "ci95": [mean.value - mean.half_width, mean.value + mean.half_width],
                "ratio": mean.value / closed,
                "half_width": mean.half_width / mean.value,
                "replications": len(replications),
                "requests": len(replications) * effort.requests,
            }
        )
    return found


def largest(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The cell in which simulation and closed form are furthest apart."""
    return max(found, key=lambda cell: abs(cell["ratio"] - 1))


@cache
def _queues(lengths: Lengths, predictions: Predictions) -> list[LimitedPreemption]:
    law = Case(lengths, predictions).law()
    return [LimitedPreemption(law, c) for c in CS]
