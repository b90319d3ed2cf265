"""One arm's whole result: `predict.training.metrics`, and how well it puts requests in order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from trail.predict.training.metrics import Forecast, JudgedRows, judge

TAU_ROWS = 20_000


def judge_arm(
    rows: JudgedRows,
    forecast: Forecast,
    *,
    kinds: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """`judge` and `kendall_tau`, ready for JSON. Raises ValueError as `judge` does."""
    result = judge(rows, forecast, kinds=kinds, resamples=resamples, seed=seed)
    return {**result, "kendall_tau": order_agreement(rows, forecast, seed)}


def order_agreement(rows: JudgedRows, forecast: Forecast, seed: int = 0) -> float | None:
    """Kendall's tau-b of predicted against true remaining length, None where either is constant.

    1: shortest first by prediction is shortest first in truth; 0: an order by chance. Over at most TAU_ROWS
    rows; `seed` alone chooses them, so all arms are compared on the same.
    """
    chosen = np.arange(len(rows.remaining))
    if len(chosen) > TAU_ROWS:
        chosen = np.random.default_rng(seed).choice(chosen, TAU_ROWS, replace=False)
    tau = float(kendalltau(forecast.tokens[chosen], rows.remaining[chosen]).statistic)
    return tau if np.isfinite(tau) else None
