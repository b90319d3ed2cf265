"""The bootstrap over prompts: how far a mean would move with other prompts of the same kind.

Steps of one request, and requests of one prompt, resemble each other, so whole prompts are drawn.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_CHUNK_DRAWS = 2_000_000


def prompt_sums(prompt: npt.NDArray[np.integer], *columns: npt.ArrayLike) -> Floats:
    """Sums over every prompt's rows, float64 [prompts, columns + 1]; the last column counts the rows.

    `prompt` int [N] is each row's prompt, in any numbering; `columns` are [N] each.
    """
    _, index = np.unique(prompt, return_inverse=True)
    sums = [np.bincount(index, weights=np.asarray(column, dtype=np.float64)) for column in columns]
    return np.stack([*sums, np.bincount(index).astype(np.float64)], axis=1)


def resampled(table: Floats, resamples: int, seed: int) -> Floats:
    """Column sums of `table` [n, m] when its n rows are drawn with replacement, float64 [resamples, m]."""
    rng = np.random.default_rng(seed)
    n = len(table)
    sums = np.empty((resamples, table.shape[1]))
    at_once = max(1, _CHUNK_DRAWS // n)
    for begin in range(0, resamples, at_once):
        count = min(at_once, resamples - begin)
        drawn = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        sums[begin : begin + count] = times.astype(np.float64) @ table
    return sums


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of resampled `values` [resamples]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
