"""One simulation: a workload, an engine, a policy; what came of it, and the capacity that loads refer to."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trail.bench.client import OUTCOMES
from trail.policy.spec import PolicySpec
from trail.report.stats import Capacity, saturated_capacity, summary
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.first_come import FirstComeOrder
from trail.simulation.engine.journal import Counters
from trail.simulation.engine.order import Order
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.engine.steptime import TICKS_PER_S, StepModel, StepTicks
from trail.simulation.engine.workload import Workload

_TIMELINE_BINS = 80

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Served:
    """What became of every request, `[n]` in order of arrival, and what the engine counted.

    Times in seconds from the arrival; `max_gap_s` is the longest between two tokens of the request, 0 for
    those of one token. `passed_over` counts those that came later and started earlier.
    `tokens_at` [m, 2]: seconds, and tokens generated until then.
    """

    work: Workload
    ttft_s: Floats
    latency_s: Floats
    max_gap_s: Floats
    passed_over: NDArray[np.int64]
    preemptions: NDArray[np.int64]
    tokens_at: Floats
    count: Counters
    wall_s: float
    """What the simulation itself took."""

    @property
    def span_s(self) -> float:
        """From the first arrival to the last token."""
        return float(self.tokens_at[-1, 0] - self.work.arrival_s[0])


def make_order(spec: PolicySpec, engine: Engine, predictions: Predictions | None) -> Order:
    """The order of `spec`. Raises ValueError where it needs predictions and there are none."""
    if not spec.orders:
        return FirstComeOrder(engine, spec.kv_reserve_tokens)
    if predictions is None:
        raise ValueError(f"policy {spec.name} ranks by predictions; give some")
    return RankedOrder(spec, engine, predictions)


def simulate(
    config: EngineConfig,
    model: StepModel,
    work: Workload,
    spec: PolicySpec,
    predictions: Predictions | None = None,
) -> Served:
    """Serve `work` under `spec`. Raises ValueError where something does not fit together."""
    began_s = time.perf_counter()
    engine = Engine(config, work, StepTicks.of(model))
    engine.run(make_order(spec, engine, predictions))
    journal = engine.journal
    first, end = (np.array(ticks, np.float64) / TICKS_PER_S for ticks in (journal.first_token, journal.end))
    tokens_at = np.array(journal.timeline, np.float64)
    tokens_at[:, 0] /= TICKS_PER_S
    return Served(
        work=work,
        ttft_s=first - work.arrival_s,
        latency_s=end - work.arrival_s,
        max_gap_s=np.array(journal.max_gap, np.float64) / TICKS_PER_S,
        passed_over=earlier_starts_of_later(np.array(journal.started, np.int64)),
        preemptions=np.array(journal.policy_preemptions) + np.array(journal.memory_preemptions),
        tokens_at=tokens_at,
        count=journal.count,
        wall_s=time.perf_counter() - began_s,
    )


def earlier_starts_of_later(started: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `n` requests in order of arrival, how many later ones have a smaller place in `started`.

    `started` is a permutation of 0 .. n-1. Merge sort's count of inversions, level by level: O(n log^2 n).
    """
    n = len(started)
    passed = np.zeros(n, np.int64)
    width = 1
    while width < n:
        pair = np.arange(n) // (2 * width)
        left = np.arange(n) % (2 * width) < width
        # Keys of different pairs lie apart, so that one search serves all pairs at once.
        keys = pair * n + started
        right_keys = np.sort(keys[~left])
        before = np.searchsorted(right_keys, pair[left] * n)
        passed[left] += np.searchsorted(right_keys, keys[left]) - before
        width *= 2
    return passed


def measure_capacity(config: EngineConfig, model: StepModel, work: Workload) -> Capacity:
    """Requests a second that the stock engine sustains when all of `work` is there from the beginning.

    As `trail bench` measures it: tokens from the first token of all until the last request begins, by the
    mean output length. Raises ValueError where the requests never fill the engine.
    """
    served = simulate(config, model, work.at_once(), PolicySpec("fcfs"))
    times, total = served.tokens_at[:, 0], served.tokens_at[:, 1]
    return saturated_capacity(times[1:], np.diff(total), served.ttft_s, work.output_tokens.astype(np.float64))


def run_record(
    served: Served, *, arm: str, repeat: int, order: int, predictions: Predictions | None, keep: int
) -> dict[str, Any]:
    """The run as `trail bench` keeps one in results.json, with `simulated` beside what it has.

    Of the requests themselves at most `keep` are written, evenly spread over the run.
    """
    work, count = served.work, served.count
    n = len(work)
    more = work.output_tokens > 1
    tpot_s = (served.latency_s - served.ttft_s)[more] / (work.output_tokens[more] - 1)
    errors = predictions.errors(work.output_tokens) if predictions is not None else None
    return {
        "arm": arm,
        "repeat": repeat,
        "order": order,
        "duration_s": served.span_s,
        "latency_s": summary(served.latency_s),
        "ttft_s": summary(served.ttft_s),
        "tpot_s": summary(tpot_s),
        "throughput": {
            "tokens_per_s": count.generated_tokens / served.span_s,
            "requests_per_s": n / served.span_s,
        },
        "outcomes": {"sent": n, **{k: n if k == "completed" else 0 for k in OUTCOMES},
                     "stopped_by_max_tokens": 0, "reasons": []},
        "outputs": None,
        "engine": {
            "preemptions": count.policy_preemptions + count.memory_preemptions,
            "recomputed_tokens": count.recomputed_tokens,
            "policy_preemptions": count.policy_preemptions,
            "preemptions_denied": count.denied,
            "fallback_steps": 0,
            "steps": count.steps,
        },
        "client": {"loop_lag_p99_s": None, "send_lag_p99_s": None},
        "prediction": None if errors is None else {
            **errors, "without_initial": 0, "initial_sources": {"prompt": n},
        },
        "simulated": {
            **asdict(count),
            "recomputed_share": count.recomputed_tokens / count.computed_tokens,
            "max_gap_s": summary(served.max_gap_s[more]),
            "passed_over": summary(served.passed_over.astype(np.float64)),
            "slowdown": summary(served.latency_s / work.output_tokens),
            "most_preemptions": int(served.preemptions.max()),
            "most_passed_over": int(served.passed_over.max()),
            "wall_s": served.wall_s,
        },
        "requests": _columns(served, keep),
        "timeline": _timeline(served),
    }  # fmt: skip


def _columns(served: Served, keep: int) -> dict[str, list[Any]]:
    work = served.work
    n = len(work)
    rows = (
        np.unique(np.linspace(0, n - 1, min(n, keep)).round().astype(np.int64))
        if keep
        else np.zeros(0, np.int64)
    )
    return {
        "arrival_s": np.round(work.arrival_s[rows], 5).tolist(),
        "ttft_s": np.round(served.ttft_s[rows], 5).tolist(),
        "latency_s": np.round(served.latency_s[rows], 5).tolist(),
        "prompt_tokens": work.prompt_tokens[rows].tolist(),
        "output_tokens": work.output_tokens[rows].tolist(),
        "outcome": ["completed"] * len(rows),
    }


def _timeline(served: Served) -> dict[str, Any]:
    """Tokens a second and requests that wait for their first token, at the middle of each bin."""
    times, total = served.tokens_at[:, 0], served.tokens_at[:, 1]
    edges = np.linspace(0.0, max(float(times[-1]), 1e-3), _TIMELINE_BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    arrived = served.work.arrival_s
    begun = np.sort(arrived + served.ttft_s)
    waiting = np.searchsorted(arrived, middles, "right") - np.searchsorted(begun, middles, "right")
    return {
        "bin_s": float(edges[1]),
        "tokens_per_s": np.round(np.diff(np.interp(edges, times, total)) / edges[1], 1).tolist(),
        "waiting": waiting.tolist(),
    }
