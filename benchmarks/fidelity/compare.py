"""Simulated beside real: ratios with the real repeats' interval, and whether arms rank alike."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from trail.report.stats import mean_interval, ratio_interval

TOLERANCE = 0.1
TIMES = ("latency_s", "ttft_s")

Means = Mapping[str, Sequence[float]]
"""Mean seconds of each repeat, by arm."""


def compare(real: Means, simulated: Means) -> dict[str, Any]:
    """One time at one load. Per arm: mean seconds of both, the real ones' 95 % interval over repeats, their
    ratio, and whether it is `within`: TOLERANCE of 1, or the interval.

    `pairs`: arms whose real means differ for sure (the interval of their ratio, repeat by repeat, leaves
    out 1), and whether the simulated ones differ the same way.
    """
    arms: dict[str, Any] = {}
    for name, seconds in real.items():
        interval = mean_interval(seconds)
        guess = mean_interval(simulated[name]).value
        ratio = guess / interval.value
        bounds = None if interval.low is None or interval.high is None else [interval.low, interval.high]
        inside = bounds is not None and bounds[0] <= guess <= bounds[1]
        arms[name] = {
            "real_s": interval.value,
            "real_ci95_s": bounds,
            "simulated_s": guess,
            "ratio": ratio,
            "repeats": [s / r for s, r in zip(simulated[name], seconds, strict=True)],
            "within": abs(ratio - 1) <= TOLERANCE or inside,
        }
    pairs = []
    for one, other in combinations(real, 2):
        apart = ratio_interval(real[one], real[other])
        if apart.low is None or apart.high is None or apart.low <= 1 <= apart.high:
            continue
        ours = ratio_interval(simulated[one], simulated[other]).value
        pairs.append(
            {
                "arms": [one, other],
                "real_ratio": apart.value,
                "real_ratio_ci95": [apart.low, apart.high],
                "simulated_ratio": ours,
                "alike": (ours < 1) == (apart.value < 1),
            }
        )
    return {"arms": arms, "pairs": pairs}


def verdict(loads: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many of all comparisons hold."""
    parts = [load[time] for load in loads for time in TIMES]
    arms = [arm for part in parts for arm in part["arms"].values()]
    pairs = [pair for part in parts for pair in part["pairs"]]
    return {
        "compared": len(arms),
        "within": sum(arm["within"] for arm in arms),
        "within_tolerance": sum(abs(arm["ratio"] - 1) <= TOLERANCE for arm in arms),
        "pairs": len(pairs),
        "pairs_alike": sum(pair["alike"] for pair in pairs),
    }
