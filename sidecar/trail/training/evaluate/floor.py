"""The error that no predictor can go below: how far apart the model's own continuations of one step end.

At a decode step the text so far is all there is to know; how long the answer still gets is drawn by
sampling. The best guess is the median of that distribution. Continuations are drawn again from many steps;
each is judged by the median of the others of its step, and what their finite number costs is taken out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MIN_CONTINUATIONS = 8
_NORMAL95 = 1.96
"""Standard errors to each side of a mean that 95 % lie within."""


@dataclass(frozen=True)
class Step:
    """A decode step: the token ids up to and including the newest, and where they came from.

    `tokens` are prompt and answer so far, `age` how many of them are the answer's, `remaining` what came.
    """

    answer: int
    age: int
    remaining: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Floor:
    """Mean absolute error in tokens with its 95 % interval, and what it was measured on.

    The interval is that of the mean over all decode steps of the answers which the steps were chosen from.
    """

    mae: float
    mae_low: float
    mae_high: float
    steps: int
    continuations: int
    left_out: int


def choose_steps(
    prompts: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]], count: int, seed: int
) -> list[Step]:
    """`count` decode steps of the answers `outputs` to `prompts`, every step as likely as every other.

    Systematic sampling over the steps sorted by what remained: steps alike are drawn in proportion, which a
    plain draw does only on average. A step of age a has seen a tokens of its answer, 1 to its length - 1.
    """
    lengths = np.array([len(output) for output in outputs], dtype=np.int64)
    steps = np.maximum(lengths - 1, 0)
    answer = np.repeat(np.arange(len(outputs)), steps)
    age = np.concatenate([np.arange(1, n + 1) for n in steps]) if len(steps) else np.empty(0, dtype=np.int64)
    if not len(answer):
        raise ValueError("no answer has a decode step; give longer answers")
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(answer)), lengths[answer] - age))
    count = min(count, len(order))
    at = ((np.arange(count) + rng.random()) * len(order) / count).astype(np.int64)
    return [
        Step(int(i), int(a), int(lengths[i] - a), tuple(prompts[i]) + tuple(outputs[i][:a]))
        for i, a in ((answer[j], age[j]) for j in order[at])
    ]


def estimate(remaining: Sequence[npt.NDArray[np.integer]]) -> Floor:
    """The floor from the continuations' lengths of every step, [continuations] each, cut ones left out.

    The steps are in the order of `choose_steps`, whose systematic sampling makes neighbours alike: what their
    mean varies by is what neighbours differ by. Steps with fewer than 8 continuations are left out and
    counted. Each step's spread is taken with all its continuations and with half of them: what judging by a
    median of n others adds is proportional to 1 / n to first order, and the two together give the spread
    without it. Raises ValueError where fewer than two steps are left.
    """
    kept = [np.asarray(r, dtype=np.float64) for r in remaining if len(r) >= _MIN_CONTINUATIONS]
    if len(kept) < 2:
        raise ValueError(
            f"fewer than two steps have {_MIN_CONTINUATIONS} continuations that ended; draw more"
        )
    spread = np.array([_unbiased_spread(r) for r in kept])
    mean, n = float(spread.mean()), len(spread)
    # Of a systematic sample (Wolter, Introduction to Variance Estimation, estimator v2).
    error = float(np.sqrt(np.square(np.diff(spread)).sum() / (2 * (n - 1) * n)))
    continuations = int(np.median([len(r) for r in kept]))
    return Floor(
        mean, mean - _NORMAL95 * error, mean + _NORMAL95 * error, n, continuations, len(remaining) - n
    )


def _unbiased_spread(values: npt.NDArray[np.float64]) -> float:
    half = len(values) // 2
    whole = spread(values[: 2 * half])
    # In order of sampling, so that the halves are exchangeable.
    halves = (spread(values[:half]) + spread(values[half : 2 * half])) / 2
    return ((2 * half - 1) * whole - (half - 1) * halves) / half


def spread(values: npt.NDArray[np.float64]) -> float:
    """Mean absolute distance of each value from the median of the others; `values` [n], n at least 2."""
    ordered = np.sort(values)
    n = len(ordered)
    # Without element i the median of n - 1 is read from its neighbours.
    middle = (n - 1) / 2
    low, high = int(np.floor(middle - 0.5)), int(np.ceil(middle - 0.5))
    i = np.arange(n)
    medians = (ordered[low + (i <= low)] + ordered[high + (i <= high)]) / 2
    return float(np.abs(ordered - medians).mean())
