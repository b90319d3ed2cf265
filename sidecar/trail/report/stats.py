"""Summaries and intervals: percentiles per run, Student intervals over repeats, saturated capacity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

STATISTICS = ("mean", "p50", "p95", "p99")

_LATE_SHARE = 0.2


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `low` and `high` are None where repeats cannot give one."""

    value: float
    low: float | None
    high: float | None


def summary(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float] | None:
    """Mean, p50, p95, p99 (linear interpolation); None for no values."""
    a = np.asarray(values, dtype=np.float64)
    if a.size == 0:
        return None
    p50, p95, p99 = np.percentile(a, [50, 95, 99])
    return {"mean": float(a.mean()), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean over repeats with Student's interval; one repeat has no interval."""
    a = np.asarray(values, dtype=np.float64)
    mean = float(a.mean())
    if a.size < 2:
        return Interval(mean, None, None)
    half = float(student.ppf((1 + confidence) / 2, a.size - 1)) * float(a.std(ddof=1)) / math.sqrt(a.size)
    return Interval(mean, mean - half, mean + half)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Geometric mean of paired ratios with Student's interval on their logarithms.

    Pairing by repeat removes what a repeat's workload does to both arms alike. Inputs must be positive.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} numerators against {len(denominators)} denominators")
    logs = [math.log(n / d) for n, d in zip(numerators, denominators, strict=True)]
    inner = mean_interval(logs, confidence)
    if inner.low is None or inner.high is None:
        return Interval(math.exp(inner.value), None, None)
    return Interval(math.exp(inner.value), math.exp(inner.low), math.exp(inner.high))


@dataclass(frozen=True)
class Capacity:
    """What stock vLLM sustains with a queue that never empties."""

    requests_per_s: float
    tokens_per_s: float
    mean_output_tokens: float
    saturated_s: float
    requests: int


def saturated_capacity(
    token_times_s: NDArray[np.float64],
    token_counts: NDArray[np.float64],
    first_token_s: NDArray[np.float64],
    output_tokens: NDArray[np.float64],
) -> Capacity:
    """Capacity from a run in which all requests arrive at time 0.

    Tokens are counted from the first token of all until the last request begins: in that time every slot is
    taken and somebody waits. Dividing by the mean output length of *all* requests avoids the bias of counting
    completions, where short requests finish first. On a machine so busy that the first token is seen late,
    tokens of that silence arrive in bulk; then the silence is counted in.

    Shapes: `token_times_s`, `token_counts` [chunks]; `first_token_s`, `output_tokens` [requests].
    Raises ValueError where the run never saturated.
    """
    if first_token_s.size == 0 or output_tokens.sum() <= 0:
        raise ValueError("no request completed, so there is no capacity to measure")
    begin, end = float(first_token_s.min()), float(first_token_s.max())
    if end <= begin:
        raise ValueError("the engine began every request at once, so it never saturated; use more requests")
    if begin > _LATE_SHARE * end:
        begin = 0.0
    inside = (token_times_s > begin) & (token_times_s <= end)
    tokens_per_s = float(token_counts[inside].sum()) / (end - begin)
    mean_tokens = float(output_tokens.mean())
    return Capacity(
        tokens_per_s / mean_tokens, tokens_per_s, mean_tokens, end - begin, int(output_tokens.size)
    )
