"""The document of a shadow report: what was logged, what the simulator makes of it, the estimated gain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trail.policy.spec import PolicySpec, parse_policy
from trail.simulation.shadow.log import (
    SHADOW,
    DecisionRecord,
    EngineLog,
    LogError,
    Logged,
    read_log,
    shadow_requests,
)
from trail.simulation.shadow.replay import ReplayError, arm, gains, prepare, steps_told

FORMAT = 1
LOGGED, STOCK = "logged", "fcfs"
_POINTS = 300
_FAR = 0.15


def estimate(
    path: Path, policies: Sequence[str], *, last: int, token_budget: int, lag: int
) -> dict[str, Any]:
    """The document for the log at `path`.

    `policies` as `parse_policy` reads them; none: those that the log was made with. At most the `last`
    requests of every engine count. Raises LogError, ReplayError, StepModelError, ValueError.
    """
    record = read_log(path)
    chosen = [(engine, shadow_requests(engine.requests)[-last:]) for engine in record.engines]
    chosen = [(engine, requests) for engine, requests in chosen if requests]
    if not chosen:
        raise LogError(
            f"{path}: no request was served in the engine's own order; log with a policy in shadow, as in"
            f" --policy trail-c0.2{SHADOW}"
        )
    specs = [parse_policy(text) for text in policies or _logged_policies(chosen)]
    return document(record, chosen, specs, token_budget=token_budget, lag=lag)


def _logged_policies(chosen: Sequence[tuple[EngineLog, Sequence[Logged]]]) -> list[str]:
    texts = {r.policy.removesuffix(SHADOW): None for _, requests in chosen for r in requests}
    texts.pop(STOCK, None)
    if not texts:
        raise ReplayError("the log names no policy that could be switched on; give one with --policies")
    return list(texts)


def document(
    record: DecisionRecord,
    chosen: Sequence[tuple[EngineLog, Sequence[Logged]]],
    specs: Sequence[PolicySpec],
    *,
    token_budget: int,
    lag: int,
) -> dict[str, Any]:
    """What becomes of `chosen` requests in the engine's order and under `specs`, engines by themselves."""
    replays = [prepare(engine, requests, token_budget=token_budget, lag=lag) for engine, requests in chosen]
    times = {LOGGED: [(r.latency_s, r.ttft_s) for r in replays]}
    for spec in (PolicySpec(STOCK), *specs):
        served = [replay.serve(spec) for replay in replays]
        times[spec.text] = [(s.latency_s, s.ttft_s) for s in served]
    joined = {
        name: tuple(np.concatenate(column) for column in zip(*columns, strict=True))
        for name, columns in times.items()
    }
    arms = {name: arm(latency, ttft) for name, (latency, ttft) in joined.items()}
    fidelity = None
    if arms[LOGGED]["latency_s"]:
        fidelity = arms[STOCK]["latency_s"]["mean"] / arms[LOGGED]["latency_s"]["mean"]
    return {
        "format": FORMAT,
        "log": str(record.path),
        "requests": sum(len(r.work) for r in replays),
        "left_out": sum(r.left_out for r in replays),
        "unpredicted": sum(r.unpredicted for r in replays),
        "damaged_lines": record.damaged,
        "seconds": max(float(r.work.arrival_s[-1]) for r in replays),
        "engines": [
            {
                "engine": engine.engine, "model": engine.model, "slots": engine.slots,
                "kv_blocks": engine.kv_blocks, "block_tokens": engine.block_tokens,
                "requests": len(replay.work), "steps": steps_told(replay),
                "predictions": replay.predictions.errors(replay.work.output_tokens),
            }
            for (engine, _), replay in zip(chosen, replays, strict=True)
        ],
        "token_budget": token_budget,
        "prediction_lag": lag,
        "fidelity": fidelity,
        "arms": arms,
        "gains": {spec.text: gains(arms[STOCK], arms[spec.text]) for spec in specs},
        "curves": {name: _curve(latency, ttft) for name, (latency, ttft) in joined.items()},
        "notes": _notes(fidelity, record.damaged),
    }  # fmt: skip


def _curve(*columns: Any) -> dict[str, list[float]]:
    """Evenly spread quantiles of latency and TTFT, for the figure."""
    shares = np.linspace(0.0, 1.0, _POINTS)
    known = [column[np.isfinite(column)] for column in columns]
    return {
        name: [round(float(v), 5) for v in np.quantile(values, shares)] if len(values) else []
        for name, values in zip(("latency_s", "ttft_s"), known, strict=True)
    }


def _notes(fidelity: float | None, damaged: int) -> list[str]:
    notes = [
        "Estimated: the log's requests were served again by a simulator, with the predictions that were made"
        " then. Requests come when they came, whatever became of earlier ones."
    ]
    if fidelity is None:
        notes.append("The log does not say how long requests took, so the simulator was not checked with it.")
    elif abs(fidelity - 1) > _FAR:
        notes.append(
            f"In the engine's own order the simulator's mean latency is {fidelity:.2f} times the logged one:"
            " do not trust the estimate further than that."
        )
    if damaged:
        notes.append(f"{damaged} lines of the log could not be read.")
    return notes
