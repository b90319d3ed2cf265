"""Ranks of requests under a policy: what the sidecar writes on the board."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trail.policy.mlfq import level
from trail.policy.spec import PolicySpec

NEVER = 2**32 - 1
"""Cut-off age that no request reaches."""


@dataclass(frozen=True)
class Ranks:
    """Ranks before protection, `[n]` each; smaller is served first.

    `rank` (float32, tokens; for mlfq the level) falls by `slope` (float32, tokens a generated token) until
    the next prediction. From age `cutoff` (uint32, generated tokens) on, an admitted request is protected.
    """

    rank: NDArray[np.float32]
    slope: NDArray[np.float32]
    cutoff: NDArray[np.uint32]


def cutoff_age(c: float, length: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Cut-off ages `floor(c * length)` (TRAIL, section 4), `[n]` generated tokens."""
    return np.clip(np.floor(c * length), 0, NEVER).astype(np.uint32)


def rank_requests(
    spec: PolicySpec,
    *,
    initial: ArrayLike,
    remaining: ArrayLike,
    exact: ArrayLike,
    age: ArrayLike,
    prompt_tokens: ArrayLike | None = None,
    gittins: ArrayLike | None = None,
) -> Ranks:
    """Ranks under `spec` of requests given by arrays `[n]`, in tokens.

    `initial` is the prediction before the request ran, `remaining` the refined prediction at `age`
    generated tokens, `exact` the total output length where it is known and 0 elsewhere (there the
    oracle falls back to `initial`). `prompt_tokens` is what mlfq goes by beside the age; left out, prompts
    count as one token. `gittins` is the index of what is left, for a spec of that size; where it is left out
    or not finite, `remaining` stands in.
    """
    r = np.asarray(initial, dtype=np.float64)
    n = r.shape[0]
    a = np.asarray(age, dtype=np.float64)
    slope = np.ones(n, dtype=np.float32)
    if spec.name == "fcfs":
        rank, length = np.zeros(n), None
        slope[:] = 0.0
    elif spec.name == "sjf":
        rank, length = r, None
        slope[:] = 0.0
    elif spec.name == "mlfq":
        rank, length = level(np.ones(n) if prompt_tokens is None else prompt_tokens, a).astype(float), None
        slope[:] = 0.0
    elif spec.name == "trail-prompt":
        rank, length = np.maximum(r - a, 0.0), r
    elif spec.name in ("trail", "adaptive"):
        rank, length = np.asarray(remaining, dtype=np.float64), r
        if spec.size == "gittins" and gittins is not None:
            index = np.asarray(gittins, dtype=np.float64)
            rank = np.where(np.isfinite(index), index, rank)
    else:
        known = np.asarray(exact, dtype=np.float64)
        length = np.where(known > 0, known, r)
        rank = np.maximum(length - a, 0.0)
    cutoff = np.full(n, NEVER, dtype=np.uint32) if length is None else cutoff_age(spec.c, length)
    return Ranks(rank=rank.astype(np.float32), slope=slope, cutoff=cutoff)
