"""What one run of one arm left behind, as it is kept in results.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trail.bench.client import COMPLETED, OUTCOMES, ClientRun, Outcome
from trail.bench.prometheus import PREEMPTIONS, counter_delta, mean_times
from trail.bench.server import Counters
from trail.report.stats import summary

_TIMELINE_BINS = 80
_MAX_REASONS = 20


@dataclass(frozen=True)
class Run:
    """One arm in one repeat: the client's view and what the engine counted."""

    arm: str
    repeat: int
    order: int
    """Place in the benchmark's sequence of runs, from 0."""
    client: ClientRun
    before: Counters
    after: Counters

    @property
    def completed(self) -> list[Outcome]:
        """Requests that ended as they should."""
        return [o for o in self.client.outcomes if o.outcome == COMPLETED]

    def lengths(self) -> dict[int, int]:
        """Output tokens by request index, completed requests only; the oracle's input."""
        return {o.index: o.output_tokens for o in self.completed}


def run_record(run: Run, reference: Run | None) -> dict[str, Any]:
    """The JSON object of a run; outputs are compared with those of `reference`, the repeat's first run."""
    client, done = run.client, run.completed
    tokens = sum(o.output_tokens for o in client.outcomes)
    first, last = _span(client.outcomes)
    span_s = max(last - first, 1e-9)
    return {
        "arm": run.arm,
        "repeat": run.repeat,
        "order": run.order,
        "duration_s": client.duration_s,
        "latency_s": summary([o.latency_s for o in done if o.latency_s is not None]),
        "ttft_s": summary([o.ttft_s for o in done if o.ttft_s is not None]),
        "tpot_s": summary([o.tpot_s for o in done if o.tpot_s is not None]),
        "throughput": {"tokens_per_s": tokens / span_s, "requests_per_s": len(done) / span_s},
        "outcomes": outcome_counts(client.outcomes),
        "outputs": compare_outputs(run, reference),
        "engine": engine_counts(run.before, run.after),
        "server": mean_times(run.before.prometheus, run.after.prometheus),
        "client": {
            "loop_lag_p99_s": _p99(client.loop_lags_s),
            "send_lag_p99_s": _p99([o.send_lag_s for o in client.outcomes]),
        },
        "prediction": None,
        "requests": _columns(client.outcomes),
        "timeline": timeline(client.outcomes),
    }


def outcome_counts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How many requests ended how, why those that went wrong did, and how many ran into max_tokens."""
    counts: dict[str, Any] = {"sent": len(outcomes)}
    counts |= {kind: sum(o.outcome == kind for o in outcomes) for kind in OUTCOMES}
    counts["stopped_by_max_tokens"] = sum(
        o.outcome == COMPLETED and o.finish_reason == "length" for o in outcomes
    )
    wrong = [o for o in outcomes if o.outcome != COMPLETED]
    counts["reasons"] = [f"{o.request_id}: {o.outcome}: {o.reason}" for o in wrong[:_MAX_REASONS]]
    return counts


def compare_outputs(run: Run, reference: Run | None) -> dict[str, Any] | None:
    """How many answers are token for token those of the reference; None for the reference itself.

    `compared` counts requests that completed in both.
    """
    if reference is None:
        return None
    expected = {o.index: o for o in reference.completed}
    pairs = [(o, expected[o.index]) for o in run.completed if o.index in expected]
    same = sum(a.digest == b.digest for a, b in pairs)
    ours, theirs = sum(a.output_tokens for a, _ in pairs), sum(b.output_tokens for _, b in pairs)
    return {
        "reference": reference.arm,
        "compared": len(pairs),
        "identical": same,
        "different": len(pairs) - same,
        "tokens": ours,
        "reference_tokens": theirs,
    }


def engine_counts(before: Counters, after: Counters) -> dict[str, Any]:
    """Deltas over a run. None where nobody counts: stock vLLM does not report recomputed tokens.

    Without a preemption nothing is recomputed, so that 0 is known for stock vLLM too.
    """
    preemptions = counter_delta(before.prometheus, after.prometheus, PREEMPTIONS)
    counts: dict[str, Any] = {"preemptions": preemptions}
    if before.engine is None or after.engine is None:
        counts["recomputed_tokens"] = 0 if preemptions == 0 else None
        return counts
    a, b = asdict(before.engine), asdict(after.engine)
    for name in (
        "policy_preemptions",
        "preemptions_denied",
        "recomputed_tokens",
        "fallback_steps",
        "steps",
        "frames_read",
        "frames_lost",
        "frames_rejected",
    ):
        counts[name] = b[name] - a[name]
    return counts


def timeline(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Tokens per second and requests that wait for their first token, over the run.

    Bins are equally wide; `waiting` is taken at each bin's middle. Requests that never began wait to the end.
    """
    _, last = _span(outcomes)
    edges = np.linspace(0.0, max(last, 1e-3), _TIMELINE_BINS + 1)
    width_s = float(edges[1])
    times = np.asarray([t for o in outcomes for t in o.token_times_s], dtype=np.float64)
    counts = np.asarray([c for o in outcomes for c in o.token_counts], dtype=np.float64)
    tokens = np.histogram(times, bins=edges, weights=counts)[0] / width_s
    middles = (edges[:-1] + edges[1:]) / 2
    arrived = np.sort([o.arrival_s for o in outcomes])
    begun = np.sort([o.arrival_s + o.ttft_s for o in outcomes if o.ttft_s is not None])
    waiting = np.searchsorted(arrived, middles, "right") - np.searchsorted(begun, middles, "right")
    return {
        "bin_s": width_s,
        "tokens_per_s": [round(float(v), 1) for v in tokens],
        "waiting": [int(v) for v in waiting],
    }


def _span(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    first = min((o.arrival_s for o in outcomes), default=0.0)
    return first, max((t for o in outcomes for t in o.token_times_s[-1:]), default=first)


def _p99(values: Sequence[float]) -> float | None:
    return float(np.percentile(values, 99)) if len(values) else None


def _columns(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 5)

    return {
        "arrival_s": [rounded(o.arrival_s) for o in outcomes],
        "ttft_s": [rounded(o.ttft_s) for o in outcomes],
        "latency_s": [rounded(o.latency_s) for o in outcomes],
        "prompt_tokens": [o.prompt_tokens for o in outcomes],
        "output_tokens": [o.output_tokens for o in outcomes],
        "outcome": [o.outcome for o in outcomes],
    }
