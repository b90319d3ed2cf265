"""How likely answers are under predicted bins, when some of them were cut and are known to be longer.

A bin's mass lies evenly on its whole numbers, here as wherever distributions are read (`quantiles`). Of an
answer that was cut at n tokens it is known that n + 1 or more were to come: all bins above, and of its own
the part above n. Counting its own bin whole would leave open how much of the mass of cut answers lies below
the limit, where answers that end are then expected that never come.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from trail.predict.bins import Bins

_NOTHING = -1e4
"""Logarithm that stands for that of 0, with finite gradients."""


def share_beyond(bins: Bins, lengths: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
    """What part of its bin's whole numbers lies above each of `lengths` [n]; all of the last, open one."""
    index = bins.index(lengths)
    low = np.asarray(bins.edges, dtype=np.float64)[index]
    share = 1.0 - (np.asarray(lengths, dtype=np.float64) + 1.0 - low) / bins.widths[index]
    return np.where(index == bins.k - 1, 1.0, np.clip(share, 0.0, 1.0)).astype(np.float32)


def log_beyond(log_p: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Logarithm of the probability of all bins above each and of the part `share` of it itself, [n, k].

    `share` is [n, k], or [n, 1] for the same part of every bin.
    """
    whole = torch.logcumsumexp(log_p.flip(1), dim=1).flip(1)
    above = F.pad(whole[:, 1:], (0, 1), value=_NOTHING)
    return torch.logaddexp(above, log_p + share.log().clamp(min=_NOTHING))


def surprise(
    logits: torch.Tensor,
    labels: npt.NDArray[np.int64],
    beyond: npt.NDArray[np.float32],
    censored: npt.NDArray[np.bool_],
) -> torch.Tensor:
    """Mean negative log likelihood of rows [n] with logits [n, k].

    `labels` are their bins and `beyond` their `share_beyond`; where `censored` is set, the answer was cut.
    """
    target = torch.from_numpy(labels).to(logits.device)
    if not censored.any():
        return F.cross_entropy(logits, target)
    log_p = F.log_softmax(logits, dim=1)
    cut = torch.from_numpy(censored).to(logits.device)
    part = torch.from_numpy(beyond).to(logits.device)[:, None]
    chosen = torch.where(cut[:, None], log_beyond(log_p, part), log_p)
    return -chosen.gather(1, target[:, None]).mean()
