"""The Gittins index of a predicted distribution: the least work per completion that a request can offer."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def gittins_index(probabilities: ArrayLike, edges: ArrayLike) -> NDArray[np.float64]:
    """Gittins indices `[n]`, in tokens, of remaining lengths L; smaller is served first.

    The index is the minimum over q of E[min(L, q)] / P(L <= q) (Gittins 1979; Aalto, Ayesta and Righter, "On
    the Gittins index in the M/G/1 queue", 2009): of all amounts of work q to spend on the request, the one
    that buys completion at the least work. A length that is known has itself as index.

    `probabilities` `[n, k]`, each row of positive sum, are those of the bins between `edges` `[k + 1]`,
    ascending tokens from 0 or more; within a bin the mass is spread evenly. With density f the quotient's
    slope has the sign of P (1 - P) - f E[min(L, q)], which only falls inside a bin, so that the quotient has
    no minimum but at the edges: k of them are looked at. O(n k).

    Raises ValueError for shapes that do not fit and for rows without mass.
    """
    p, bounds = np.asarray(probabilities, np.float64), np.asarray(edges, np.float64)
    if p.ndim != 2 or bounds.shape != (p.shape[1] + 1,):
        raise ValueError(
            f"probabilities are {p.shape} with {bounds.shape} edges; expected [n, k] and [k + 1]"
        )
    total = p.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("a row of probabilities has no positive sum; give distributions")
    p = p / total
    midpoints = (bounds[:-1] + bounds[1:]) / 2
    done = np.minimum(np.cumsum(p, axis=1), 1.0)
    work = np.cumsum(p * midpoints, axis=1) + bounds[1:] * (1.0 - done)
    quotients = np.divide(work, done, out=np.full_like(work, np.inf), where=done > 0)
    index: NDArray[np.float64] = quotients.min(axis=1)
    return index
