"""From sizes to ranks: what a policy makes of every request's present size in the step that is to come."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trail.policy.decide import effective_rank
from trail.policy.guard import LEAST_TOKENS, boost_scale, boosted_arrival
from trail.policy.spec import PolicySpec

Floats = NDArray[np.floating]

UNCOMPUTED_SHARE = 0.4
"""Work of computing a token that is known already, in generated tokens: 0.2 to 0.7 by the step times of an 8B
model on an H200 or A100, with 64 or 256 sequences decoding (`simulation.engine.steptime`)."""
CLASS_SPACING = 2.0**24
"""Distance of two priority classes in ranks, more than ranks of one class can be apart (see `ranks`)."""
MOST_URGENT = 2.0**22
"""A deadline brings a request forward by so many seconds before its arrival at most."""


@dataclass(frozen=True)
class Terms:
    """What a policy says beside the rows; it travels in the board's header.

    `order` and `preempt` say whether requests are put in order and preempted at all, `boost` whether ranks
    are boosted arrivals in seconds (adaptive) or the sizes themselves. `mean_initial` and `mean_prompt`
    (tokens) are the running means of initial predictions and of prompts, `wait_s` how long the queue is
    (`policy.guard`), `token_s` the time from one token of a request to its next. The others are the policy's
    parameters (`policy.spec`).
    """

    order: bool
    preempt: bool
    boost: bool
    c: float
    mean_initial: float
    kv_reserve_tokens: float
    kappa: float = 1.0
    wait_s: float = 0.0
    token_s: float = 0.0
    preempt_ratio: float = 1.0
    max_preemptions: int = -1
    mean_prompt: float = 0.0

    @property
    def scale(self) -> float:
        """R, the mean size of requests that come, in tokens."""
        return boost_scale(self.mean_initial + UNCOMPUTED_SHARE * self.mean_prompt)

    @classmethod
    def of(
        cls,
        spec: PolicySpec,
        *,
        mean_initial: float,
        mean_prompt: float = 0.0,
        wait_s: float = 0.0,
        token_s: float = 0.0,
    ) -> "Terms":
        """The terms of `spec` in a present state. Requests not known yet enter mlfq's first queue: mean 0."""
        return cls(
            order=spec.orders,
            preempt=spec.preempts,
            boost=spec.boosts,
            c=spec.c,
            mean_initial=0.0 if spec.name == "mlfq" else mean_initial,
            kv_reserve_tokens=-1.0 if spec.shadow else spec.kv_reserve_tokens,
            kappa=spec.kappa,
            wait_s=wait_s,
            token_s=token_s,
            preempt_ratio=spec.preempt_ratio,
            max_preemptions=spec.max_preemptions,
            mean_prompt=mean_prompt,
        )


def ranks(
    terms: Terms,
    *,
    size: Floats,
    arrival_s: Floats,
    deadline_s: Floats,
    priority: Floats | NDArray[np.integer],
    uncomputed_tokens: Floats | NDArray[np.integer],
) -> NDArray[np.float64]:
    """Ranks `[n]` before protection, smaller is served first.

    Without a boost the rank is `size` (tokens at the present age, or mlfq's level) and nothing else counts.
    With one it is the boosted arrival of w = size + `UNCOMPUTED_SHARE` of `uncomputed_tokens`, the known
    tokens that are still to be computed before the request's next one. `deadline_s` (infinite: none) is a
    point of the clock of `arrival_s`: the rank is at most the deadline less W less the time for w tokens.
    Classes of `priority` come before ranks, smaller ones first, as in vLLM. Infinite kappa ranks by w alone:
    it is the limit of large kappa, in which deadlines no longer count.

    In a class ranks lie between `MOST_URGENT` seconds before a request's arrival and that arrival, so that
    classes keep apart while open requests arrived within 100 days of one another. Between updates of `terms`
    the rank of a request that gets older falls, but for one that its deadline has brought forward: having
    done a part of its work it is less urgent. O(n).
    """
    if not terms.boost:
        return np.asarray(size, np.float64)
    w = size + UNCOMPUTED_SHARE * uncomputed_tokens
    if math.isinf(terms.kappa):
        rank = np.maximum(w, LEAST_TOKENS)
    else:
        rank = boosted_arrival(w, arrival_s, terms.wait_s, terms.kappa, terms.scale)
        early = np.minimum(terms.wait_s + terms.token_s * w, MOST_URGENT)
        rank = np.minimum(rank, deadline_s - early)
    return rank + CLASS_SPACING * np.asarray(priority, np.float64)


def effective_ranks(
    terms: Terms,
    *,
    size: Floats,
    protected: NDArray[np.bool_],
    arrival_s: Floats,
    deadline_s: Floats,
    priority: Floats | NDArray[np.integer],
    uncomputed_tokens: Floats | NDArray[np.integer],
) -> NDArray[np.float64]:
    """`ranks` `[n]` with minus infinity for `protected` requests, whatever their class."""
    before = ranks(
        terms,
        size=size,
        arrival_s=arrival_s,
        deadline_s=deadline_s,
        priority=priority,
        uncomputed_tokens=uncomputed_tokens,
    )
    return effective_rank(before, protected)
