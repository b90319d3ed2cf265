"""results.json to one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from trail.bench.report import figures
from trail.bench.report.tables import all_counts, times_with_intervals
from trail.report.page import page
from trail.report.palette import arm_styles


def render(results: Mapping[str, Any], more: Sequence[tuple[str, str | None, str]] = ()) -> str:
    """The page; `more` are further sections: a title, a figure that may be None, its caption."""
    arms = results["arms"]
    styles = arm_styles(list(arms))
    best = _best(arms)
    return page(
        "trail.bench.report",
        "bench.html.j2",
        headline=_headline(best),
        styles=styles.values(),
        tiles=_tiles(best, arms) if best else (),
        r=results,
        model_name=results["config"]["model"].rstrip("/").rsplit("/", 1)[-1],
        times=times_with_intervals(arms, styles),
        counts=all_counts(arms, styles),
        more=more,
        figures={
            "speedups": figures.speedups(arms, styles),
            "distributions": figures.distributions(arms, styles),
            "over_time": figures.over_time(arms, styles),
            "latency_by_length": figures.latency_by_length(arms, styles),
            "prediction_errors": figures.prediction_errors(arms, styles),
        },
    )


def _best(arms: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arm with the lowest mean latency among those that could be deployed; the oracle could not."""
    candidates = {
        n: a
        for n, a in arms.items()
        if not n.startswith("oracle") and a["speedup"] and a["speedup"]["latency_s"]
    }
    if not candidates:
        return None
    name = max(candidates, key=lambda n: candidates[n]["speedup"]["latency_s"]["mean"])
    return {"name": name, **candidates[name]["speedup"]}


def _headline(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return "TRAIL benchmark"
    times = best["latency_s"]["mean"]
    if times < 1:
        return "No arm answers sooner than stock vLLM"
    return f"{best['name']}: mean latency {times:.2f} times lower than stock vLLM"


def _tiles(best: Mapping[str, Any], arms: Mapping[str, Any]) -> list[tuple[str, str]]:
    name = best["name"]
    rates = [arms[n]["throughput"]["tokens_per_s"] for n in (name, "fcfs")]
    return [
        (f"{best['latency_s']['mean']:.2f}x", f"lower mean latency, {name} vs fcfs"),
        (f"{best['ttft_s']['mean']:.2f}x", "lower mean time to first token"),
        (f"{best['latency_s']['p99']:.2f}x", "lower p99 latency (below 1: higher)"),
        (f"{rates[0] / rates[1]:.3f}x", "output tokens per second over the whole run"),
    ]
