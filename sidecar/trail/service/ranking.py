"""The `Rank` call: the board's ordering for a caller that shares no memory, as a pure function."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trail.policy.decide import effective_rank, is_protected, rank_now, serving_order
from trail.policy.ranks import rank_requests
from trail.policy.spec import PolicySpec

TOKENS_LIMIT = 2**31
"""Predictions beyond this are taken for a mistake of the caller."""


class InvalidCandidate(ValueError):  # noqa: N818 - it is what the caller sent
    """A field of the request that cannot be ranked; the message names it."""


@dataclass(frozen=True)
class Candidate:
    """A request to be ranked. Tokens; predictions of 0 are unknown."""

    id: str
    arrival_time_s: float = 0.0
    age: int = 0
    admitted: bool = False
    initial_prediction: float = 0.0
    predicted_remaining: float = 0.0
    exact_output_tokens: int = 0


@dataclass(frozen=True)
class RankedCandidate:
    """Where a request stands. `rank` is minus infinity for a protected one."""

    id: str
    rank: float
    cutoff_age: int
    preemptible: bool


def rank_candidates(
    spec: PolicySpec, candidates: Sequence[Candidate], mean_initial: float
) -> list[RankedCandidate]:
    """The candidates, first served first: protected ones, then by rank, ties by arrival, then by id.

    A candidate without an initial prediction counts as one of `mean_initial` tokens, as on the board.
    Raises InvalidCandidate naming the field.
    """
    _check(candidates)
    ordered = sorted(candidates, key=lambda candidate: (candidate.arrival_time_s, candidate.id))
    if not ordered:
        return []
    age = np.array([c.age for c in ordered], dtype=np.int64)
    stated = np.array([c.initial_prediction for c in ordered], dtype=np.float64)
    initial = np.where(stated > 0, stated, mean_initial)
    given = np.array([c.predicted_remaining for c in ordered], dtype=np.float64)
    remaining = np.where(given > 0, given, np.maximum(initial - age, 0.0))
    exact = np.array([c.exact_output_tokens for c in ordered], dtype=np.float64)
    admitted = np.array([c.admitted for c in ordered], dtype=np.bool_)
    ranks = rank_requests(spec, initial=initial, remaining=remaining, exact=exact, age=age)
    protected = is_protected(admitted, age, ranks.cutoff)
    effective = effective_rank(rank_now(ranks.rank, ranks.slope, age, age), protected)
    order = serving_order(effective, np.arange(len(ordered)))
    preemptible = admitted & ~protected if spec.preempts else np.zeros(len(ordered), dtype=np.bool_)
    return [
        RankedCandidate(
            id=ordered[i].id,
            rank=float(effective[i]),
            cutoff_age=int(ranks.cutoff[i]),
            preemptible=bool(preemptible[i]),
        )
        for i in order
    ]


def _check(candidates: Sequence[Candidate]) -> None:
    seen: set[str] = set()
    for index, candidate in enumerate(candidates):
        where = f"candidates[{index}]"
        if not candidate.id:
            raise InvalidCandidate(f"{where}.id is empty; give every candidate an id of its own")
        if candidate.id in seen:
            raise InvalidCandidate(f"{where}.id repeats {candidate.id!r}; ids must differ")
        seen.add(candidate.id)
        if not math.isfinite(candidate.arrival_time_s):
            raise InvalidCandidate(f"{where}.arrival_time_s is {candidate.arrival_time_s}; give seconds")
        for name in ("initial_prediction", "predicted_remaining"):
            value = getattr(candidate, name)
            if not 0 <= value < TOKENS_LIMIT:
                raise InvalidCandidate(
                    f"{where}.{name} is {value}; give tokens, finite and not negative, or 0 for unknown"
                )
