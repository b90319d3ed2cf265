"""The board's rows for every prediction that is ever made, worked out before the simulation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trail.policy import decide
from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.workload import Workload

_AT_A_TIME = 200_000
_REFINED = frozenset({"trail", "adaptive", "mlfq"})
"""Policies whose row depends on more than what is known before a request runs."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BoardRows:
    """Rows of request i at `first[i]` (before it runs) and `first[i] + 1 + j` (predicted at age j `every`).

    `rank` and `remaining` (predicted tokens, whatever the policy ranks by) are of the age of the row;
    `slope` and `cutoff` `[n]` are a request's own.
    """

    every: int
    refined: bool
    first: Ints
    rank: NDArray[np.float32]
    remaining: NDArray[np.float32]
    slope: NDArray[np.float32]
    cutoff: NDArray[np.uint32]

    def size(self, ids: Ints, age: Ints, shown_age: Ints) -> Floats:
        """Sizes `[n]` at `age`, by the newest prediction made before `shown_age` tokens were generated."""
        row, row_age = self._rows(ids, shown_age)
        return decide.rank_now(self.rank[row], self.slope[ids], row_age, age)

    def left(self, ids: Ints, age: Ints) -> Floats:
        """Predicted remaining tokens `[n]` at `age`."""
        row, row_age = self._rows(ids, age)
        return np.maximum(self.remaining[row] - (age - row_age).astype(np.float64), 0.0)

    def _rows(self, ids: Ints, shown_age: Ints) -> tuple[Ints, Ints]:
        """Row and its age: the prediction at age a comes with token a + 1."""
        row = self.first[ids]
        if not self.refined:
            return row, np.zeros(len(ids), np.int64)
        made = np.maximum((shown_age + (self.every - 1)) // self.every, 0)
        return row + made, np.maximum(made - 1, 0) * self.every


def board_rows(spec: PolicySpec, work: Workload, predictions: Predictions) -> BoardRows:
    """All rows under `spec`, by `rank_requests`."""
    n, every = len(work), predictions.every
    refined = spec.name in _REFINED
    counts = (work.output_tokens - 1) // every + 1 if refined else np.zeros(n, np.int64)
    first = np.arange(n) + np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)[:-1]))
    total = n + int(counts.sum())
    request = np.repeat(np.arange(n), counts + 1)
    place = np.arange(total) - first[request]
    age = np.maximum(place - 1, 0) * every
    remaining = np.empty(total, np.float32)
    index = np.empty(total, np.float32)
    before = place == 0
    remaining[before], index[before] = predictions.initial, predictions.gittins_initial
    if refined:
        remaining[~before], index[~before] = predictions.refined, predictions.gittins
    rank = np.empty(total, np.float32)
    cutoff = np.empty(n, np.uint32)
    slope = np.empty(n, np.float32)
    for begin in range(0, total, _AT_A_TIME):
        part = slice(begin, begin + _AT_A_TIME)
        ids = request[part]
        ranked = rank_requests(
            spec,
            initial=predictions.initial[ids],
            remaining=remaining[part],
            exact=work.output_tokens[ids],
            age=age[part],
            prompt_tokens=work.prompt_tokens[ids],
            gittins=index[part],
        )
        rank[part] = ranked.rank
        own = before[part]
        cutoff[ids[own]], slope[ids[own]] = ranked.cutoff[own], ranked.slope[own]
    return BoardRows(every, refined, first, rank, remaining, slope, cutoff)
