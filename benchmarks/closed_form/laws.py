"""Laws of lengths and predictions that can both be drawn from exactly and be given to the closed form as
pairs."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from trail.simulation.plan.mg1 import JointLaw, binned_law, exact_law, joint_law, lognormal_law

Floats = NDArray[np.float64]

_CELLS = 1500


class Lengths(Hashable, Protocol):
    """A law of lengths."""

    @property
    def mean(self) -> float:
        """E[X]."""

    @property
    def second_moment(self) -> float:
        """E[X^2]."""

    def cells(self) -> tuple[Floats, Floats]:
        """The law as values and weights [n] each; a continuous one in cells, each at its own mean."""

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Independent lengths, float64 [n]."""


@dataclass(frozen=True)
class Exponential:
    """Exponential lengths of mean 1."""

    mean: float = 1.0
    second_moment: float = 2.0

    def cells(self) -> tuple[Floats, Floats]:
        """Cells whose width grows with the length, up to 40 means."""
        edges = np.concatenate([[0.0], np.geomspace(1e-5, 40.0, _CELLS)])
        survival = np.exp(-edges)
        weight = -np.diff(survival)
        return -np.diff((edges + 1) * survival) / weight, weight

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Independent lengths, float64 [n]."""
        return rng.exponential(size=n)


@dataclass(frozen=True)
class Lognormal:
    """Lognormal lengths of mean 1; `sigma` is the standard deviation of the logarithm."""

    sigma: float
    mean: float = 1.0

    @property
    def second_moment(self) -> float:
        """E[X^2]."""
        return math.exp(self.sigma**2)

    def cells(self) -> tuple[Floats, Floats]:
        """Cells equally wide in the logarithm, over eight standard deviations and more on each side."""
        z = np.linspace(-8.0, 8.0 + self.sigma, _CELLS + 1)
        weight, work = np.diff(ndtr(z)), np.diff(ndtr(z - self.sigma))
        kept = weight > 0
        return work[kept] / weight[kept], weight[kept]

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Independent lengths, float64 [n]."""
        return np.asarray(np.exp(self.sigma * rng.standard_normal(n) - self.sigma**2 / 2))


@dataclass(frozen=True, eq=False)
class Empirical:
    """Recorded lengths, each as likely as the others; equal to itself only."""

    values: Floats

    @cached_property
    def mean(self) -> float:
        """E[X]."""
        return float(self.values.mean())

    @cached_property
    def second_moment(self) -> float:
        """E[X^2]."""
        return float((self.values**2).mean())

    def cells(self) -> tuple[Floats, Floats]:
        """The distinct lengths and how often each was recorded."""
        values, counts = np.unique(self.values, return_counts=True)
        return values, counts / len(self.values)

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """Independent lengths, float64 [n]."""
        return self.values[rng.integers(0, len(self.values), n)]


class Predictions(Hashable, Protocol):
    """What is predicted, given the length."""

    def law(self, lengths: Lengths) -> JointLaw:
        """Pairs for the closed form."""

    def draw(self, rng: np.random.Generator, size: Floats) -> Floats:
        """A prediction for every length, float64 [n]."""


@dataclass(frozen=True)
class Perfect:
    """The length itself."""

    def law(self, lengths: Lengths) -> JointLaw:
        """Pairs for the closed form."""
        return exact_law(*lengths.cells())

    def draw(self, rng: np.random.Generator, size: Floats) -> Floats:  # noqa: ARG002 - nothing is drawn
        """A prediction for every length, float64 [n]."""
        return size


@dataclass(frozen=True)
class Noisy:
    """The length times a lognormal factor of median 1."""

    sigma: float

    def law(self, lengths: Lengths) -> JointLaw:
        """Pairs for the closed form."""
        size, weight = lengths.cells()
        return lognormal_law(size, self.sigma, weight)

    def draw(self, rng: np.random.Generator, size: Floats) -> Floats:
        """A prediction for every length, float64 [n]."""
        return np.asarray(size * np.exp(self.sigma * rng.standard_normal(len(size))))


@dataclass(frozen=True)
class ExponentialError:
    """A prediction drawn from the exponential distribution whose mean is the length: the paper's example."""

    def law(self, lengths: Lengths) -> JointLaw:
        """Pairs for the closed form."""
        (size, weight), (factor, mass) = lengths.cells(), Exponential().cells()
        factor, mass = _coarser(factor, mass, 5)
        return joint_law(
            np.repeat(size, len(factor)), np.outer(size, factor).ravel(), np.outer(weight, mass).ravel()
        )

    def draw(self, rng: np.random.Generator, size: Floats) -> Floats:
        """A prediction for every length, float64 [n]."""
        return size * rng.exponential(size=len(size))


@dataclass(frozen=True)
class Binned:
    """A classifier of `bins` equal bins over 0 to `top` that names the midpoint of a bin.

    A bin's probability falls by the factor `decay` with every step between it and the true one.
    """

    bins: int
    top: float
    decay: float

    @property
    def edges(self) -> Floats:
        """Bin edges, float64 [bins + 1]."""
        return np.linspace(0.0, self.top, self.bins + 1)

    @property
    def confusion(self) -> Floats:
        """P(named bin | true bin), float64 [bins, bins], a row a true bin."""
        place = np.arange(self.bins)
        falling = self.decay ** np.abs(place[:, None] - place)
        return np.asarray(falling / falling.sum(axis=1, keepdims=True))

    def law(self, lengths: Lengths) -> JointLaw:
        """Pairs for the closed form."""
        size, weight = lengths.cells()
        return binned_law(size, self.edges, self.confusion, weight)

    def draw(self, rng: np.random.Generator, size: Floats) -> Floats:
        """A prediction for every length, float64 [n]."""
        true = np.searchsorted(self.edges[1:-1], size, side="right")
        below = np.cumsum(self.confusion, axis=1)[:, :-1]
        named = (rng.random(len(size))[:, None] >= below[true]).sum(axis=1)
        return np.asarray((named + 0.5) * self.top / self.bins)


@dataclass(frozen=True)
class Case:
    """Lengths and predictions: a source for the simulation and pairs for the closed form."""

    lengths: Lengths
    predictions: Predictions

    @property
    def mean_size(self) -> float:
        """E[X]."""
        return self.lengths.mean

    @property
    def second_moment(self) -> float:
        """E[X^2]."""
        return self.lengths.second_moment

    def law(self) -> JointLaw:
        """Pairs for the closed form."""
        return self.predictions.law(self.lengths)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Sizes and predictions, float64 [n] each."""
        size = self.lengths.draw(rng, n)
        return size, self.predictions.draw(rng, size)


def generated_lengths(n: int = 20_000, seed: int = 0) -> Empirical:
    """Lengths in whole tokens as a service might record them: short and long answers, at most 1,024."""
    rng = np.random.default_rng(seed)
    median = np.where(rng.random(n) < 0.35, 30.0, 240.0)
    return Empirical(np.clip(np.ceil(median * np.exp(0.6 * rng.standard_normal(n))), 1, 1024))


def _coarser(value: Floats, weight: Floats, by: int) -> tuple[Floats, Floats]:
    """Cells joined `by` at a time, each at its mean."""
    starts = np.arange(0, len(value), by)
    mass = np.add.reduceat(weight, starts)
    return np.add.reduceat(value * weight, starts) / mass, mass
