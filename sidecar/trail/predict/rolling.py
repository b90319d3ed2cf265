"""Errors and calibration of the last finished requests, beside the artefact's own figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PREDICTORS = ("probe", "prompt", "constant")
PROGRESS = tuple(f"{10 * tenth}-{10 * tenth + 10}%" for tenth in range(10))
"""Tenths of a request's whole length, by age."""
LENGTH_EDGES = (32, 128, 512, 2048)
LENGTHS = ("1-31", "32-127", "128-511", "512-2047", "2048-")
"""Whole lengths in tokens."""
_GROUPS = 10
_INTERVAL = 0.8


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors of predicted remaining length in tokens, by predictor; NaN where it said nothing.

    `probe` is the refined and corrected prediction, `prompt` the prompt predictor's whole length counted
    down, `constant` the median length of the last requests counted down.
    """

    probe: float = math.nan
    prompt: float = math.nan
    constant: float = math.nan

    @classmethod
    def of_artefact(cls, metrics: Mapping[str, Any]) -> "Errors":
        """The same on held-out answers when the artefact was made (its constant does not count down)."""
        held_out = metrics.get("held_out")
        found = held_out if isinstance(held_out, Mapping) else {}

        def figure(name: str) -> float:
            value = found.get(f"mae_{name}_tokens")
            return float(value) if isinstance(value, int | float) else math.nan

        return cls(probe=figure("refined"), prompt=figure("prompt"), constant=figure("constant"))


@dataclass(frozen=True)
class Figures:
    """What the last `requests` requests that ended by themselves say of the predictors.

    Errors are means over decode steps, so that they compare with the artefact's. `by_progress` and
    `by_length` give the probe's by the names in PROGRESS and LENGTHS (NaN where there was nothing to judge).
    `coverage80` is how often the truth lay in the central 80 % interval, `calibration_error` the mean
    difference between stated and observed frequencies over the deciles; NaN without requests.
    """

    requests: int = 0
    errors: Errors = field(default_factory=Errors)
    by_progress: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PROGRESS, math.nan))
    by_length: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(LENGTHS, math.nan))
    coverage80: float = math.nan
    calibration_error: float = math.nan


@dataclass(frozen=True)
class Judged:
    """A finished request's sampled predictions against what came, in order of age.

    `age` int [s]; `errors` float64 [3, s], absolute, in the order of PREDICTORS, NaN where one said nothing;
    `level` float64 [s], the probability that the prediction gave to less than what came.
    """

    length: int
    age: npt.NDArray[np.int64]
    errors: Floats
    level: Floats

    def means(self) -> Errors:
        """Mean errors along the request."""
        return Errors(*(float(value) for value in self.errors.mean(axis=1)))


def figures(judged: Sequence[Judged]) -> Figures:
    """The figures of some finished requests."""
    if not judged:
        return Figures()
    length = np.concatenate([np.full(len(one.age), one.length) for one in judged])
    age = np.concatenate([one.age for one in judged])
    errors = np.concatenate([one.errors for one in judged], axis=1)
    level = np.concatenate([one.level for one in judged])
    weight = np.concatenate([_steps_each(one) for one in judged])
    if not weight.sum() > 0:
        return Figures(requests=len(judged))
    progress = np.minimum(len(PROGRESS) * age // np.maximum(length, 1), len(PROGRESS) - 1)
    return Figures(
        requests=len(judged),
        errors=Errors(*(_mean(of, weight) for of in errors)),
        by_progress=_by(PROGRESS, progress, errors[0], weight),
        by_length=_by(LENGTHS, np.searchsorted(LENGTH_EDGES, length, side="right"), errors[0], weight),
        coverage80=_mean((np.abs(level - 0.5) <= _INTERVAL / 2).astype(np.float64), weight),
        calibration_error=_calibration_error(level, weight),
    )


def _steps_each(one: Judged) -> Floats:
    """How many decode steps each sample stands for: those it is nearest to. The prompt's prediction at age 0,
    which errs most, stands for none.

    Errors fall fastest before the first sample of a long answer, so that means come out a little low: 6 % on
    150 of the demo model's answers.
    """
    each = np.zeros(len(one.age))
    decode = one.age > 0
    age = one.age[decode]
    if len(age):
        last = max(one.length - 0.5, 0.5)
        edges = np.concatenate(([0.5], (age[1:] + age[:-1]) / 2, [last]))
        each[decode] = np.diff(np.clip(edges, 0.5, last))
    return each


def _mean(values: Floats, weight: Floats) -> float:
    known = np.isfinite(values) & (weight > 0)
    return float(np.average(values[known], weights=weight[known])) if known.any() else math.nan


def _by(
    names: Sequence[str], group: npt.NDArray[np.int64], values: Floats, weight: Floats
) -> dict[str, float]:
    return {name: _mean(values[group == i], weight[group == i]) for i, name in enumerate(names)}


def _calibration_error(level: Floats, weight: Floats) -> float:
    """Mean over the inner deciles of |share of levels below - decile|."""
    deciles = np.arange(1, _GROUPS) / _GROUPS
    share = np.array([weight[level < decile].sum() for decile in deciles]) / weight.sum()
    return float(np.abs(share - deciles).mean())
