"""The `Rank` call: the board's ordering for a caller that shares no memory, as a pure function."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trail.policy.decide import is_protected, serving_order
from trail.policy.ranks import Terms, effective_ranks
from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec

TOKENS_LIMIT = 2**31
"""Predictions beyond this are taken for a mistake of the caller."""


class InvalidCandidate(ValueError):  # noqa: N818 - it is what the caller sent
    """A field of the request that cannot be ranked; the message names it."""


@dataclass(frozen=True)
class Candidate:
    """A request to be ranked. Tokens; predictions of 0 are unknown.

    `deadline_s` is in seconds from the arrival, 0 for none; `preemptions` is how often the request gave way
    to another.
    """

    id: str
    arrival_time_s: float = 0.0
    age: int = 0
    admitted: bool = False
    initial_prediction: float = 0.0
    predicted_remaining: float = 0.0
    exact_output_tokens: int = 0
    priority: int = 0
    deadline_s: float = 0.0
    prompt_tokens: int = 0
    preemptions: int = 0


@dataclass(frozen=True)
class RankedCandidate:
    """Where a request stands. `rank` is minus infinity for a protected one, in tokens for others.

    Of adaptive it is in seconds, from the earliest arrival of all candidates.
    """

    id: str
    rank: float
    cutoff_age: int
    preemptible: bool


def rank_candidates(
    spec: PolicySpec,
    candidates: Sequence[Candidate],
    mean_initial: float,
    wait_s: float = 0.0,
    token_s: float = 0.0,
) -> list[RankedCandidate]:
    """The candidates, first served first: protected ones, then by rank, ties by arrival, then by id.

    A candidate without an initial prediction counts as one of `mean_initial` tokens, as on the board.
    `wait_s` and `token_s` are what adaptive goes by: how long the queue is, and the time from one token of a
    request to its next; prompts are measured by the candidates' mean. Raises InvalidCandidate naming the
    field.
    """
    _check(candidates)
    for name, value in (("wait_s", wait_s), ("token_s", token_s)):
        if not 0 <= value < math.inf:
            raise InvalidCandidate(f"{name} is {value}; give seconds, finite and not negative")
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
    prompt_tokens = np.array([c.prompt_tokens for c in ordered], dtype=np.int64)
    arrival_s = np.array([c.arrival_time_s - ordered[0].arrival_time_s for c in ordered])
    ranks = rank_requests(
        spec, initial=initial, remaining=remaining, exact=exact, age=age, prompt_tokens=prompt_tokens
    )
    protected = is_protected(admitted, age, ranks.cutoff)
    terms = Terms.of(
        spec,
        mean_initial=mean_initial,
        mean_prompt=float(prompt_tokens.mean()),
        wait_s=wait_s,
        token_s=token_s,
    )
    effective = effective_ranks(
        terms,
        size=ranks.rank,
        protected=protected,
        arrival_s=arrival_s,
        deadline_s=arrival_s + np.array([c.deadline_s or np.inf for c in ordered]),
        priority=np.array([c.priority for c in ordered]),
        uncomputed_tokens=np.where(admitted, 0, prompt_tokens),
    )
    order = serving_order(effective, np.arange(len(ordered)))
    preemptions = np.array([c.preemptions for c in ordered], dtype=np.int64)
    spared = is_protected(admitted, age, ranks.cutoff, preemptions, spec.max_preemptions)
    preemptible = admitted & ~spared if spec.preempts else np.zeros(len(ordered), dtype=np.bool_)
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
        if not 0 <= candidate.deadline_s < math.inf:
            raise InvalidCandidate(
                f"{where}.deadline_s is {candidate.deadline_s}; give seconds after the arrival, or 0 for none"
            )
        for name in ("initial_prediction", "predicted_remaining"):
            value = getattr(candidate, name)
            if not 0 <= value < TOKENS_LIMIT:
                raise InvalidCandidate(
                    f"{where}.{name} is {value}; give tokens, finite and not negative, or 0 for unknown"
                )
