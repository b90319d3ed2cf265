"""FastServe's skip-join multi-level feedback queue (arXiv 2305.05920, section 4.1), which predicts nothing.

A request enters the first queue whose quantum covers its first iteration, which is the prompt's, and is moved
one queue down when it has used up its quantum there. Quanta double from queue to queue. Simplified: service
is counted in tokens and not in time, with a prompt token at a fixed share of a generated one; a request is
moved on when its age is next seen, not within a step; nobody is promoted for having waited; keys and values
of those that give way are computed again and not swapped.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIRST_QUANTUM = 16.0
"""Service in the first queue, in generated tokens."""
LEVELS = 10
PROMPT_SHARE = 0.1
"""Cost of computing a prompt token, in generated tokens."""


def level(prompt_tokens: ArrayLike, age: ArrayLike) -> NDArray[np.int64]:
    """Queues `[n]`, 0 is served first, of requests with prompts and ages `[n]` in tokens.

    A request that entered queue e has left queue j after service `FIRST_QUANTUM * (2**(j + 1) - 2**e)`. The
    first token comes with the prompt's iteration, so that a request of age 0 has had no service. O(n).
    """
    first = np.maximum(np.asarray(prompt_tokens, np.float64) * PROMPT_SHARE, 1.0)
    generated = np.asarray(age, np.float64)
    entry = np.maximum(np.ceil(np.log2(first / FIRST_QUANTUM)), 0.0)
    service = np.where(generated > 0, first + generated - 1.0, 0.0)
    reached = np.floor(np.log2(service / FIRST_QUANTUM + 2.0**entry))
    levels: NDArray[np.int64] = np.minimum(reached, LEVELS - 1).astype(np.int64)
    return levels
