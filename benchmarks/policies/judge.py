"""What the runs of a setting come to, and which of the stated targets they reach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.policies.settings import KNOB, Case
from trail.bench.config import Arm, Load
from trail.report.stats import ratio_interval
from trail.simulation.assemble import RATIOS, load_summary

OURS, STOCK, RESERVED = "adaptive", "fcfs", "fcfs-reserve16"
PAPER_ARMS = ("trail-c0", "trail-c0.2", "trail-c0.8")
PAPER_MEAN, PAPER_TTFT = 1 / 1.66, 1 / 5.0
FRONTIER_SLACK = 1.02

Row = Mapping[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True)
class Check:
    """One target: what is asked of `quantity` in which settings, the worst that was found, and where."""

    name: str
    asked: float
    worst: float
    where: str
    settings: int
    reached_in: int

    @property
    def reached(self) -> bool:
        """Whether it holds in every setting."""
        return self.reached_in == self.settings


def setting_row(
    case: Case, load: Load, arms: Sequence[Arm], records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One entry of `settings` in policies.json: every arm's ratios to stock FCFS of the same requests.

    `mean_to_reserved` and the others beside them are ratios to FCFS with the watermark.
    """
    summary = load_summary(load, arms, records)["arms"]
    reserved = {r["repeat"]: r for r in records if r["arm"] == RESERVED}
    for name, entry in summary.items():
        runs = [r for r in records if r["arm"] == name and r["repeat"] in reserved]
        for ratio, (quantity, statistic) in RATIOS.items():
            if runs:
                to = ratio_interval(
                    [r[quantity][statistic] for r in runs],
                    [reserved[r["repeat"]][quantity][statistic] for r in runs],
                )
                entry[ratio.replace("_ratio", "_to_reserved")] = to.value
    return {
        "name": case.setting_name(load.times_capacity or 0.0),
        "load": load.times_capacity,
        "lengths": case.lengths,
        "arrivals": case.arrivals,
        "memory": case.memory,
        "device": case.device,
        "peak": case.peak(load.times_capacity or 0.0),
        "arms": summary,
    }


def checks(rows: Rows) -> list[Check]:
    """The targets of `adaptive` with one default setting everywhere."""
    bound = [row for row in rows if row["peak"] and row["memory"] == "slots-bound"]
    poor = [row for row in rows if row["peak"] and row["memory"] == "KV-poor"]
    quiet = [row for row in rows if row["load"] < 0.9]
    asked = [
        ("overload, slots-bound: mean latency", bound, "mean_ratio", 0.70),
        ("overload, slots-bound: mean TTFT", bound, "ttft_ratio", 0.55),
        ("overload, slots-bound: p99 latency", bound, "p99_ratio", 1.25),
        ("overload, KV-poor: mean latency", poor, "mean_ratio", 0.50),
        ("overload, KV-poor: mean latency to FCFS with the watermark", poor, "mean_to_reserved", 0.80),
        ("overload, KV-poor: p99 latency to FCFS with the watermark", poor, "p99_to_reserved", 1.10),
        ("below 0.9 load: mean latency", quiet, "mean_ratio", 1.02),
        ("below 0.9 load: mean TTFT", quiet, "ttft_ratio", 1.02),
        ("below 0.9 load: p99 latency", quiet, "p99_ratio", 1.02),
    ]
    found = []
    for name, among, quantity, limit in asked:
        values = [
            (row["arms"][OURS][quantity], row["name"])
            for row in among
            if quantity in row["arms"].get(OURS, {})
        ]
        if values:
            worst = max(values)
            found.append(
                Check(name, limit, worst[0], worst[1], len(values), sum(v <= limit for v, _ in values))
            )
    return found


def knob_points(row: Row) -> list[tuple[float, float, str]]:
    """(p99 ratio, mean ratio, arm) of `adaptive` over kappa, by p99."""
    points = [
        (entry["p99_ratio"], entry["mean_ratio"], name)
        for name, entry in row["arms"].items()
        if name == OURS or name in KNOB
    ]
    return sorted(points)


def frontier_gaps(row: Row) -> dict[str, float | None]:
    """For every baseline, mean latency of `adaptive` at no more than the baseline's p99, to the baseline's.

    Between two values of kappa the frontier is a straight line. At most `FRONTIER_SLACK`: it lies on or above
    the baseline. A baseline whose p99 is smaller than that of the first point by no more than the slack is
    compared with that point. None where no kappa has so small a p99.
    """
    points = knob_points(row)
    if len(points) < 2:
        return {}
    best: list[tuple[float, float]] = []
    for p99, mean, _ in points:
        if not best or mean < best[-1][1]:
            best.append((p99, mean))
    at, means = np.array(best).T
    gaps: dict[str, float | None] = {}
    for name, entry in row["arms"].items():
        if name == OURS or name in KNOB or name.startswith("oracle"):
            continue
        p99 = entry["p99_ratio"]
        if p99 * FRONTIER_SLACK < at[0]:
            gaps[name] = None
        else:
            gaps[name] = float(np.interp(p99, at, means)) / entry["mean_ratio"]
    return gaps


def frontier(rows: Rows) -> list[dict[str, Any]]:
    """Where a baseline lies beyond the frontier of mean against p99 over kappa."""
    out = []
    for row in rows:
        gaps = frontier_gaps(row)
        if gaps:
            beyond = {name: gap for name, gap in gaps.items() if gap is None or gap > FRONTIER_SLACK}
            out.append({"name": row["name"], "gaps": gaps, "beyond": beyond})
    return out


def paper_regime(rows: Rows) -> list[dict[str, Any]]:
    """Where `trail` has the paper's mean latency (1.66 times lower) and TTFT (5 times lower)."""
    return [
        {"name": row["name"], "arm": name, **{q: row["arms"][name][q] for q in RATIOS}}
        for row in rows
        for name in PAPER_ARMS
        if name in row["arms"]
        and row["arms"][name]["mean_ratio"] <= PAPER_MEAN
        and row["arms"][name]["ttft_ratio"] <= PAPER_TTFT
    ]


def losses(rows: Rows) -> list[dict[str, Any]]:
    """Where a policy that predicts no more than `adaptive` has a lower mean latency, and at what p99."""
    out = []
    for row in rows:
        own = row["arms"][OURS]
        for name, entry in row["arms"].items():
            if name in (OURS, *KNOB) or name.startswith("oracle"):
                continue
            if entry["mean_ratio"] < own["mean_ratio"] / FRONTIER_SLACK:
                out.append(
                    {
                        "name": row["name"],
                        "arm": name,
                        "mean_ratio": entry["mean_ratio"],
                        "p99_ratio": entry["p99_ratio"],
                        "own_mean_ratio": own["mean_ratio"],
                        "own_p99_ratio": own["p99_ratio"],
                    }
                )
    return out
