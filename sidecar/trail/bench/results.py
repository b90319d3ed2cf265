"""results.json: runs put together by arm, with intervals over repeats, written whole or not at all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trail.bench.client import OUTCOMES
from trail.bench.config import STOCK
from trail.report.stats import STATISTICS, Interval, mean_interval, ratio_interval

FORMAT = 1
TIMES = ("latency_s", "ttft_s", "tpot_s")


class ResultsError(ValueError):
    """A results file that cannot be rendered."""


def assemble(
    meta: Mapping[str, Any], arm_names: Sequence[str], records: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """All of results.json from what is known of the benchmark (`meta`) and the records of its runs."""
    by_arm: dict[str, list[Mapping[str, Any]]] = {name: [] for name in arm_names}
    for record in records:
        by_arm[record["arm"]].append(record)
    stock = by_arm.get(STOCK, [])
    arms = {name: _arm(runs, stock if name != STOCK else []) for name, runs in by_arm.items() if runs}
    return {"format": FORMAT, **meta, "notes": _notes(arms, meta), "arms": arms}


def read_results(path: Path) -> dict[str, Any]:
    """A results file that this version can render. Raises ResultsError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ResultsError(f"{path}: cannot be read as results of trail bench ({e})") from e
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not isinstance(content.get("arms"), dict)
    ):
        raise ResultsError(f"{path}: not results of this version of trail bench; run the benchmark again")
    return content


def _arm(runs: Sequence[Mapping[str, Any]], stock: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    arm: dict[str, Any] = {"repeats": len(runs)}
    for quantity in TIMES:
        arm[quantity] = _over_repeats([r[quantity] for r in runs], STATISTICS)
    arm["throughput"] = _over_repeats([r["throughput"] for r in runs], ("tokens_per_s", "requests_per_s"))
    arm["outcomes"] = {
        key: sum(r["outcomes"][key] for r in runs) for key in ("sent", *OUTCOMES, "stopped_by_max_tokens")
    }
    arm["outcomes"]["reasons"] = [reason for r in runs for reason in r["outcomes"]["reasons"]]
    arm["outputs"] = _outputs([r["outputs"] for r in runs if r["outputs"] is not None])
    arm["engine"] = _totals([r["engine"] for r in runs])
    arm["prediction"] = _prediction([r["prediction"] for r in runs if r["prediction"] is not None])
    arm["client"] = {
        key: max((r["client"][key] for r in runs if r["client"][key] is not None), default=None)
        for key in ("loop_lag_p99_s", "send_lag_p99_s")
    }
    arm["speedup"] = {q: _speedup(q, runs, stock) for q in TIMES} if stock else None
    arm["runs"] = list(runs)
    return arm


def _over_repeats(
    values: Sequence[Mapping[str, float] | None], names: Sequence[str]
) -> dict[str, Any] | None:
    present = [v for v in values if v is not None]
    if not present:
        return None
    intervals = {name: mean_interval([v[name] for v in present]) for name in names}
    return {
        **{n: i.value for n, i in intervals.items()},
        "ci95": {n: _bounds(i) for n, i in intervals.items()},
    }


def _speedup(
    quantity: str, runs: Sequence[Mapping[str, Any]], stock: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    theirs = {r["repeat"]: r[quantity] for r in stock if r[quantity] is not None}
    pairs = [(theirs[r["repeat"]], r[quantity]) for r in runs if r[quantity] and r["repeat"] in theirs]
    if not pairs or any(min(a[s], b[s]) <= 0 for a, b in pairs for s in STATISTICS):
        return None
    intervals = {s: ratio_interval([a[s] for a, _ in pairs], [b[s] for _, b in pairs]) for s in STATISTICS}
    return {
        **{s: i.value for s, i in intervals.items()},
        "ci95": {s: _bounds(i) for s, i in intervals.items()},
    }


def _bounds(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def _outputs(compared: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not compared:
        return None
    keys = ("compared", "identical", "different", "tokens", "reference_tokens")
    total = {key: sum(c[key] for c in compared) for key in keys}
    return {
        **total,
        "share_identical": total["identical"] / total["compared"] if total["compared"] else None,
        "tokens_ratio": total["tokens"] / total["reference_tokens"] if total["reference_tokens"] else None,
    }


def _totals(counts: Sequence[Mapping[str, int | None]]) -> dict[str, int | None]:
    out: dict[str, int | None] = {}
    for key in {k: None for c in counts for k in c}:
        values = [c.get(key) for c in counts]
        out[key] = None if any(v is None for v in values) else sum(v for v in values if v is not None)
    return out


def _prediction(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not runs:
        return None
    weights = {
        "initial_mae_tokens": "requests",
        "refined_mae_tokens": "predictions",
        "countdown_mae_tokens": "predictions",
    }
    out: dict[str, Any] = {k: sum(r[k] for r in runs) for k in ("requests", "without_initial", "predictions")}
    for key, weight in weights.items():
        known = [(r[key], r[weight]) for r in runs if r[key] is not None and r[weight]]
        out[key] = sum(v * w for v, w in known) / sum(w for _, w in known) if known else None
    sources: dict[str, int] = {}
    for r in runs:
        for name, n in r["initial_sources"].items():
            sources[name] = sources.get(name, 0) + n
    return {**out, "initial_sources": sources}


def _notes(arms: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]) -> list[str]:
    notes = []
    if not meta["complete"]:
        notes.append("The benchmark was stopped before its end; only finished runs are shown.")
    for name, arm in arms.items():
        out, outputs, engine = arm["outcomes"], arm["outputs"], arm["engine"]
        wrong = out["sent"] - out["completed"]
        if wrong:
            notes.append(
                f"{name}: {wrong} of {out['sent']} requests did not complete ({out['rejected']} rejected,"
                f" {out['failed']} failed, {out['cut']} cut); listed in results.json, without a latency."
            )
        if outputs and outputs["different"]:
            notes.append(
                f"{name}: {outputs['different']} of {outputs['compared']} answers differ from the first arm;"
                f" their total length is {outputs['tokens_ratio']:.4f} times that arm's."
            )
        if engine.get("recomputed_tokens") is None:
            notes.append(f"{name}: stock vLLM preempted, and does not report how many tokens it recomputed.")
        if engine.get("fallback_steps"):
            notes.append(
                f"{name}: {engine['fallback_steps']} of {engine['steps']} engine steps fell back to"
                " first come, first served."
            )
        prediction = arm["prediction"]
        if prediction and len(prediction["initial_sources"]) > 1:
            sources = ", ".join(f"{n} {kind}" for kind, n in sorted(prediction["initial_sources"].items()))
            notes.append(f"{name}: initial predictions did not all come from one source: {sources}.")
        lag = max((v for v in arm["client"].values() if v is not None), default=0.0)
        if arm["ttft_s"] and lag > 0.1 * arm["ttft_s"]["mean"]:
            notes.append(
                f"{name}: the client itself was late by {1e3 * lag:.0f} ms at p99; the machine is overloaded."
            )
    return notes
