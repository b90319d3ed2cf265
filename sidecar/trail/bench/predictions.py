"""Prediction errors per run, from the statistics that the sidecar writes when it stops."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

REQUEST_ID = re.compile(r"^cmpl-(?P<run>.+)-(?P<index>\d+)-\d+-[0-9a-f]{8}$")
"""vLLM names a completion `cmpl-<X-Request-Id>-<prompt index>-<8 hex digits>`; `index` is the bench's own."""


def read_sidecar_stats(path: Path) -> dict[str, Any] | None:
    """The statistics file; None where the sidecar left none (it was killed)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def errors_by_run(requests: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Prediction errors in tokens, by run id.

    `initial_mae_tokens`: mean over requests of |r - length|. `refined_mae_tokens`: mean over all predictions
    made while generating, of |predicted - actual|. `countdown_mae_tokens`: the error that r, counted
    down, has at those same moments, for a like comparison. Aborted requests are left out.
    """
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for request in requests:
        match = REQUEST_ID.match(str(request.get("request_id", "")))
        if match and request.get("finish_reason") in ("stop", "length"):
            by_run.setdefault(match["run"], []).append(request)
    return {run: _errors(rows) for run, rows in by_run.items()}


def _errors(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    known = [r for r in rows if r.get("initial") is not None]
    initial = np.asarray([abs(r["initial"] - r["output_tokens"]) for r in known], dtype=np.float64)
    refined = [r for r in known if r.get("refined_mae") is not None and r.get("predictions", 0) > 0]
    weights = np.asarray([r["predictions"] for r in refined], dtype=np.float64)

    def weighted(values: list[float]) -> float | None:
        return float(np.average(values, weights=weights)) if refined else None

    return {
        "requests": len(rows),
        "without_initial": len(rows) - len(known),
        "initial_sources": dict(Counter(str(r.get("initial_source")) for r in rows)),
        "initial_mae_tokens": float(initial.mean()) if known else None,
        "predictions": int(weights.sum()),
        "refined_mae_tokens": weighted([r["refined_mae"] for r in refined]),
        "countdown_mae_tokens": weighted([abs(r["initial"] - r["output_tokens"]) for r in refined]),
    }
