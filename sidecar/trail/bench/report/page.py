"""results.json to one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from trail.bench.report import figures
from trail.bench.report.tables import all_counts, times_with_intervals
from trail.report.page import Facts, Section, Soft, figure, page, points, section
from trail.report.palette import arm_styles

_MEASURED = (
    "Open loop: requests leave at their arrival times whatever became of earlier ones, and times count from"
    " the arrival. Every arm gets the same requests with the same sampling seeds, one arm after another on"
    " the same machine; which server goes first alternates between repeats. The arm fcfs is vLLM without"
    " TRAIL in a process of its own. The prefix cache is emptied before every run. The oracle is told the"
    " lengths that the first run of the repeat produced."
)


def render(results: Mapping[str, Any], more: Sequence[Section | None] = ()) -> str:
    """The page; `more` stands before the section that says how it was measured."""
    arms, config = results["arms"], results["config"]
    styles = arm_styles(list(arms))
    model_name = config["model"].rstrip("/").rsplit("/", 1)[-1]
    repeats = f"{config['repeats']} repeat{'s' if config['repeats'] != 1 else ''}"
    best = _best(arms)
    return page(
        title=f"TRAIL benchmark: {model_name}",
        headline=_headline(best),
        lead=[
            model_name,
            results["load"]["text"],
            f"{config['requests']} requests a run, {repeats}",
            f"seed {results['seed']}",
            results["started_at"],
        ],
        tiles=_tiles(best, arms) if best else (),
        styles=styles.values(),
        sections=[
            section("To know before reading on", points(results["notes"]), warning=True),
            _speedups(figures.speedups(arms, styles), config["repeats"]),
            section(
                "All arms",
                Soft(
                    "Seconds, from a request's arrival time; mean over repeats of each repeat's statistic. A"
                    " time in small print is half the width of its 95 % interval."
                ),
                times_with_intervals(arms, styles),
                all_counts(arms, styles),
                Soft(
                    "Preemptions and recomputed tokens are totals over all repeats; “?” means that nobody"
                    " counts them. Requests that did not complete are counted and have no latency."
                ),
            ),
            section(
                "Who waits how long",
                figure(
                    figures.distributions(arms, styles),
                    "Share of requests that were served within a time; all repeats together. Further left is"
                    " better.",
                ),
            ),
            section(
                "Over time",
                figure(
                    figures.over_time(arms, styles),
                    "First repeat. Left: how many have arrived and got nothing yet. Right: what the engine"
                    " produces meanwhile.",
                ),
            ),
            section(
                "Latency by output length",
                figure(
                    figures.latency_by_length(arms, styles),
                    "First repeat, one dot a request (at most 400 an arm), same axes. First come, first"
                    " served makes short answers wait like long ones.",
                ),
            ),
            section(
                "Prediction error",
                figure(
                    figures.prediction_errors(arms, styles),
                    "r is the initial prediction. The lower two bars of an arm are measured at every token,"
                    " so they compare like with like: what refinement adds to counting down from r.",
                ),
            ),
            *more,
            section("How this was measured", _MEASURED, Facts(_facts(results))),
        ],
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


def _speedups(drawn: str | None, repeats: int) -> Section | None:
    if drawn is None:
        return None
    bars = (
        "; bars are 95 % intervals (Student's t on the logarithm)"
        if repeats > 1
        else "; a single repeat gives no interval"
    )
    return section(
        "How many times lower than stock vLLM",
        Soft("Right of the dashed line is better. Ratios are taken within a repeat, on identical requests."),
        figure(drawn, f"Geometric mean over repeats{bars}."),
    )


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    capacity, host = results["capacity"], results["host"]
    found = []
    if capacity:
        found.append(
            (
                "Measured capacity",
                f"{capacity['requests_per_s']:.2f} requests/s, {capacity['tokens_per_s']:,.0f} tokens/s;"
                f" stock vLLM saturated for {capacity['saturated_s']:.1f} s by {capacity['requests']}"
                f" requests of {capacity['mean_output_tokens']:.0f} output tokens on average",
            )
        )
    for name, value in results["config"].items():
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        found.append((name.replace("_", " "), text))
    software = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    machine = f"{host['processor']}, {host['cpus']} cores, {host['memory_gib']} GiB, {host['system']}"
    taken = f"{results['seconds']:.0f} s with {len(results['servers'])} engine starts"
    return [*found, ("Software", software), ("Machine", machine), ("Time taken", taken)]
