"""Records of a sweep put together: results.json as `trail bench` writes it, and what every load gave."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trail.bench.config import STOCK, Arm, Arrivals, Load
from trail.bench.results import assemble
from trail.report.host import host, versions
from trail.report.stats import Capacity, mean_interval, ratio_interval
from trail.simulation.engine.steptime import COEFFICIENTS
from trail.simulation.engine.workload import RECORDED
from trail.simulation.sweep import Setting

RATIOS = {
    "mean_ratio": ("latency_s", "mean"),
    "ttft_ratio": ("ttft_s", "mean"),
    "p99_ratio": ("latency_s", "p99"),
}
"""What is compared with stock FCFS, of the same requests: below 1 is better."""

Records = Sequence[Mapping[str, Any]]


def load_results(
    setting: Setting,
    arms: Sequence[Arm],
    load: Load,
    rate_per_s: float | None,
    records: Records,
    *,
    capacity: Capacity | None,
    seeds: Sequence[int],
    complete: bool,
    started_at: str,
    seconds: float,
) -> dict[str, Any]:
    """results.json of one load, in the shape of `trail bench`."""
    engine, model = asdict(setting.engine), setting.model
    relative = rate_per_s / capacity.requests_per_s if rate_per_s and capacity else None
    requests = records[0]["outcomes"]["sent"] if records else setting.requests
    meta = {
        "complete": complete,
        "started_at": started_at,
        "seconds": round(seconds, 1),
        "seed": seeds[0],
        "simulated": True,
        "config": {
            "model": f"simulated {model.name}",
            "workload": setting.source.name,
            "arms": [a.name for a in arms],
            "load": load.text,
            "arrivals": arrivals_text(setting.arrivals),
            "requests": requests,
            "repeats": len(seeds),
            "predictor": f"{setting.predictor.text}, every {setting.every} tokens",
            "engine": [f"{k}={v}" for k, v in engine.items() if k != "jumps"],
            "step_seconds": [f"{c}={getattr(model, c):.4g}" for c in COEFFICIENTS],
        },
        "capacity": asdict(capacity) if capacity else None,
        "load": {
            "text": _text(setting, rate_per_s, relative),
            "rate_per_s": rate_per_s,
            "times_capacity": relative,
        },
        "versions": versions(),
        "host": host(),
        "servers": [],
    }  # fmt: skip
    ordered = sorted(records, key=lambda r: r["order"])
    results = assemble(meta, [a.name for a in arms], ordered)
    results["notes"].insert(0, "Simulated: no model ran. Times are those of the step model.")
    return results


def arrivals_text(arrivals: Arrivals) -> str:
    """The arrival process as it is written on the command line, or that it is the workload's own."""
    return "recorded" if arrivals == RECORDED else arrivals.text


def _text(setting: Setting, rate_per_s: float | None, relative: float | None) -> str:
    if setting.arrivals.kind == "burst":
        return "burst: everything arrives at once"
    if rate_per_s is None:
        return "recorded arrivals on their own clock"
    times = f" = {relative:.2f} x simulated stock capacity" if relative else ""
    return f"{arrivals_text(setting.arrivals)} arrivals, {rate_per_s:.2f} requests/s{times}"


def load_summary(load: Load, arms: Sequence[Arm], records: Records) -> dict[str, Any]:
    """What every arm gave at one load: seconds, ratios to stock FCFS, counts; means over seeds."""
    by_arm = {arm.name: [r for r in records if r["arm"] == arm.name] for arm in arms}
    stock = {r["repeat"]: r for r in by_arm.get(STOCK, [])}
    out: dict[str, Any] = {}
    for arm in arms:
        runs = by_arm[arm.name]
        if not runs:
            continue
        entry: dict[str, Any] = {
            "c": arm.policy.c if arm.policy.cuts_off else None,
            "policy": arm.policy.name,
        }
        for name, (quantity, statistic) in RATIOS.items():
            seconds = mean_interval([r[quantity][statistic] for r in runs])
            entry[name.removesuffix("_ratio") + "_s"] = seconds.value
            pairs = [(r, stock[r["repeat"]]) for r in runs if r["repeat"] in stock]
            if pairs:
                ratio = ratio_interval(
                    [r[quantity][statistic] for r, _ in pairs], [s[quantity][statistic] for _, s in pairs]
                )
                entry[name] = ratio.value
                entry[f"{name}_ci95"] = None if ratio.low is None else [ratio.low, ratio.high]
        simulated = [r["simulated"] for r in runs]
        for name in ("recomputed_share", "most_passed_over"):
            entry[name] = mean_interval([float(s[name]) for s in simulated]).value
        entry["preemptions_per_request"] = mean_interval(
            [r["engine"]["preemptions"] / r["outcomes"]["sent"] for r in runs]
        ).value
        gaps = [s["max_gap_s"]["p99"] for s in simulated if s["max_gap_s"]]
        entry["max_gap_p99_s"] = mean_interval(gaps).value if gaps else None
        out[arm.name] = entry
    return {"load": load.text, "arms": out}
