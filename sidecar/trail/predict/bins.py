"""Output-length bins: the classes that probe and prompt predictor choose between."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Bins:
    """`k` adjoining ranges of token counts; bin i holds lengths in [edges[i], edges[i + 1]).

    `edges` are k + 1 ascending token counts, the first 0. Lengths at or beyond the last edge belong to
    the last bin. Every bin is at least one token wide, because the refinement moves down one bin with
    probability 1 / width (TRAIL, section 3). Raises ValueError for anything else.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) < 2:
            raise ValueError(f"bins need at least two edges, got {list(self.edges)}")
        if not all(math.isfinite(edge) for edge in self.edges):
            raise ValueError(f"bin edges must be finite token counts, got {list(self.edges)}")
        if self.edges[0] != 0:
            raise ValueError(f"the first bin edge must be 0 tokens, got {self.edges[0]:g}")
        for lower, upper in zip(self.edges, self.edges[1:], strict=False):
            if upper - lower < 1:
                raise ValueError(
                    f"bins must ascend and be at least 1 token wide, got an edge at {lower:g} followed by"
                    f" one at {upper:g}; use fewer bins or a longer range"
                )

    @property
    def k(self) -> int:
        """Number of bins."""
        return len(self.edges) - 1

    @cached_property
    def midpoints(self) -> npt.NDArray[np.float64]:
        """Middle of every bin in tokens, float64 [k]."""
        edges = np.asarray(self.edges, dtype=np.float64)
        return (edges[:-1] + edges[1:]) / 2

    @cached_property
    def widths(self) -> npt.NDArray[np.float64]:
        """Width of every bin in tokens, float64 [k]."""
        return np.diff(np.asarray(self.edges, dtype=np.float64))

    def index(self, lengths: npt.ArrayLike | Sequence[float]) -> npt.NDArray[np.int64]:
        """Bin of every length in tokens, int64 of the same shape.

        Raises ValueError for a negative or non-finite length.
        """
        values = np.asarray(lengths, dtype=np.float64)
        if not np.all(np.isfinite(values)) or np.any(values < 0):
            raise ValueError("lengths must be finite and not negative (tokens)")
        inner = np.asarray(self.edges[1:-1], dtype=np.float64)
        return np.searchsorted(inner, values, side="right").astype(np.int64)


def equal_bins(k: int = 10, max_tokens: float = 512.0) -> Bins:
    """The paper's bins: `k` of equal width over 0 to `max_tokens` tokens."""
    if k < 1:
        raise ValueError(f"at least one bin is needed, got k = {k}")
    return Bins(tuple(float(edge) for edge in np.linspace(0.0, max_tokens, k + 1)))


def geometric_bins(k: int = 24, max_tokens: float = 512.0) -> Bins:
    """`k` bins over 0 to `max_tokens` tokens whose edges grow by a constant factor, rounded to whole tokens.

    Few tokens are told apart finely, many coarsely: an error is judged against the length it is made at. The
    first bin is [0, 2), since a request that still runs has at least one token to come. Raises ValueError
    where `max_tokens` is too small for `k` bins of at least one token.
    """
    if k < 1:
        raise ValueError(f"at least one bin is needed, got k = {k}")
    edges = [0.0]
    for i in range(1, k):
        grown = 2.0 * (max_tokens / 2.0) ** ((i - 1) / (k - 1))
        edges.append(max(float(round(grown)), edges[-1] + (1.0 if i > 1 else 2.0)))
    return Bins((*edges, float(max_tokens)))
