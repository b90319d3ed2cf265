"""What one more prefill token costs an engine, from how many steps and tokens it got through in a while."""

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FORGET_S = 300.0
"""Time constant with which old measurements fade."""
SPREAD = 1e-3
"""Share of the variation of prefill tokens that steps and output tokens must leave unexplained."""

_STEPS, _OUTPUT, _PREFILL = range(3)

Floats = NDArray[np.float64]


class StepCost:
    """Least squares of time: seconds = a steps + b output tokens + d prefill tokens, none of them negative.

    With memory-bound steps a prefill token rides along and d is small; where prefill is dear it is not.
    """

    def __init__(self) -> None:
        self._products = np.zeros((3, 3))
        self._times = np.zeros(3)

    def add(self, seconds: float, steps: int, prefill_tokens: int, output_tokens: int) -> None:
        """Takes one stretch of time in which the engine never rested."""
        if not 1e-6 < seconds < math.inf or steps <= 0:
            return
        keep = math.exp(-seconds / FORGET_S)
        counts = np.array([steps, output_tokens, prefill_tokens], np.float64)
        # By relative errors, so that long stretches do not outweigh the others.
        self._products = self._products * keep + np.outer(counts, counts) / seconds
        self._times = self._times * keep + counts

    def recompute_cost(self, full_batch: float) -> float:
        """m: time of one more prefill token over that of one output token of a full batch. NaN: unknown.

        Of a full batch, whatever runs now: in quiet times an output token is dear, and m would look smaller
        than a burst finds it.
        """
        seconds = self.seconds()
        if seconds is None or not full_batch >= 1:
            return math.nan
        output_s = float(seconds[_STEPS]) / full_batch + float(seconds[_OUTPUT])
        return float(seconds[_PREFILL]) / output_s if output_s > 0 else math.nan

    def seconds(self) -> Floats | None:
        """a, b and d, None while prefill cannot be told from the rest."""
        scale = np.sqrt(np.diag(self._products))
        if not scale[_STEPS] > 0 or not scale[_PREFILL] > 0:
            return None
        scale[scale == 0] = 1.0
        alike = self._products / np.outer(scale, scale)
        times = self._times / scale
        others = np.ix_([_STEPS, _OUTPUT], [_STEPS, _OUTPUT])
        against = alike[_PREFILL, [_STEPS, _OUTPUT]]
        explained = float(against @ np.linalg.pinv(alike[others], rcond=1e-9) @ against)
        if not explained < 1.0 - SPREAD:
            return None
        seconds: Floats = _non_negative(alike, times) / scale
        return seconds


def _non_negative(products: Floats, times: Floats) -> Floats:
    """The x >= 0 `[3]` least in x' products x - 2 x' times, by trying every set of positive entries."""
    best, least = np.zeros(3), 0.0
    for size in (1, 2, 3):
        for chosen in combinations(range(3), size):
            part = products[np.ix_(chosen, chosen)]
            if np.linalg.det(part) < 1e-9:
                continue
            x = np.linalg.solve(part, times[list(chosen)])
            value = float(x @ part @ x - 2 * x @ times[list(chosen)])
            if (x >= 0).all() and value < least:
                best, least = np.zeros(3), value
                best[list(chosen)] = x
    return best


def full_batch(max_running: int, kv_tokens: float, prompt_tokens: float, answer_tokens: float) -> float:
    """Requests that run under a long queue: what slots and memory allow. A NaN length sets no bound.

    The mean context of those that run is taken as a mean prompt and answer: long answers run longer.
    """
    context = prompt_tokens + answer_tokens
    by_memory = max(kv_tokens / context, 1.0) if kv_tokens > 0 and context > 0 else math.inf
    return min(float(max_running), by_memory)
