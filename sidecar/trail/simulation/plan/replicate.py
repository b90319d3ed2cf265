"""Means of simulated queues with confidence intervals: independent replications and control variates.

A replication also gives quantities whose expectation is known: mean size, mean squared size, mean gap between
arrivals, and the response time of the same requests served first come first served, which Pollaczek and
Khinchine give. Regressing on them removes what one replication's requests do to any policy (Lavenberg, Welch
1981).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from trail.simulation.plan.mg1 import JointLaw
from trail.simulation.plan.queue_sim import Requests, fcfs_response_times

Floats = NDArray[np.float64]


class SampledLaw(Protocol):
    """A joint law of size and prediction that can be drawn from."""

    @property
    def mean_size(self) -> float:
        """E[X]."""

    @property
    def second_moment(self) -> float:
        """E[X^2]."""

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Sizes and predictions, float64 [n] each."""


@dataclass(frozen=True)
class PairSource:
    """Draws pairs of a joint law by their weights."""

    law: JointLaw

    @property
    def mean_size(self) -> float:
        """E[X]."""
        return self.law.mean_size

    @property
    def second_moment(self) -> float:
        """E[X^2]."""
        return self.law.second_moment

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Sizes and predictions, float64 [n] each."""
        below = np.cumsum(self.law.weight)
        chosen = np.searchsorted(below / below[-1], rng.random(n), side="right")
        return self.law.size[chosen], self.law.prediction[chosen]


@dataclass(frozen=True)
class Effort:
    """Size of a replication: `requests` are judged; `margin` more come before them and again after them, so
    that the judged ones find a queue in its steady state and later arrivals delay them as they should."""

    requests: int
    margin: int

    def judged(self, values: Floats) -> Floats:
        """Without the margins, float64 [requests]."""
        return values[self.margin : self.margin + self.requests]


@dataclass(frozen=True)
class Replication:
    """Judged response times by arm, float64 [requests] each, and the controls of this replication [4]."""

    responses: dict[str, Floats]
    controls: Floats


def replicate(
    source: SampledLaw,
    load: float,
    arms: Mapping[str, Callable[[Requests], Floats]],
    *,
    seed: Sequence[int],
    effort: Effort,
) -> Replication:
    """One replication at a load, with the same requests for every arm. Equal seeds give equal requests.

    An arm gives the response times of all requests.
    """
    rng = np.random.default_rng(list(seed))
    n = effort.requests + 2 * effort.margin
    gap = rng.exponential(source.mean_size / load, n)
    requests = Requests(np.cumsum(gap), *source.draw(rng, n))
    known = (requests.size, requests.size**2, gap, fcfs_response_times(requests))
    return Replication(
        {name: effort.judged(arm(requests)) for name, arm in arms.items()},
        np.array([effort.judged(values).mean() for values in known]),
    )


def expected_controls(source: SampledLaw, load: float) -> Floats:
    """Expectations of a replication's controls, float64 [4], in their order."""
    mean, square = source.mean_size, source.second_moment
    fcfs = load / mean * square / (2 * (1 - load)) + mean
    return np.array([mean, square, mean / load, fcfs])


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its confidence interval."""

    value: float
    half_width: float


def controlled_mean(values: Floats, controls: Floats, expected: Floats, confidence: float = 0.95) -> Estimate:
    """Expectation of `values` [m] given controls [m, q] with known expectations [q], by linear regression.

    Raises ValueError for fewer than q + 3 replications, which leave no degrees of freedom worth the name.
    """
    m, q = controls.shape
    if m < q + 3:
        raise ValueError(f"{q} controls need at least {q + 3} replications, got {m}")
    design = np.column_stack([np.ones(m), (controls - expected) / expected])
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ values
    freedom = m - q - 1
    residual = values - design @ coefficients
    error = float(np.sqrt(residual @ residual / freedom * inverse[0, 0]))
    return Estimate(float(coefficients[0]), float(student.ppf((1 + confidence) / 2, freedom)) * error)
