"""Results as a benchmark makes them, from simulated runs through the real records and assembly."""

from dataclasses import replace
from typing import Any

import numpy as np

from trail.bench.client import COMPLETED, CUT, ClientRun, Outcome
from trail.bench.record import Run, run_record
from trail.bench.results import assemble
from trail.bench.server import Counters
from trail.report.host import host, versions
from trail.serving.control import EngineState

ARMS = ("fcfs", "sjf", "trail-prompt", "trail-c0", "trail-c0.2", "trail-c0.8", "oracle")


def simulate(order_by_length: float, repeat: int, n: int = 150, slots: int = 4) -> list[Outcome]:
    """Slots that make 100 tokens a second each, with a queue; `order_by_length` 0 is FCFS, 1 is SJF."""
    rng = np.random.default_rng(repeat)
    lengths = rng.gamma(1.3, 90, n).astype(int) + 5
    arrivals = np.cumsum(rng.exponential(lengths.mean() / 100 / slots / 1.3, n))
    free_at, waiting, out = [0.0] * slots, list(range(n)), []
    while waiting:
        slot = int(np.argmin(free_at))
        now = max(free_at[slot], arrivals[min(waiting)])
        here = [i for i in waiting if arrivals[i] <= now]
        pick = min(here, key=lambda i: (order_by_length * lengths[i] + (1 - order_by_length) * i, i))
        waiting.remove(pick)
        length = int(lengths[pick])
        times = now + 0.02 + np.arange(0, length, 4) / 100
        free_at[slot] = now + length / 100
        counts = [min(4, length - k) for k in range(0, length, 4)]
        out.append(
            Outcome(
                index=pick,
                request_id=f"r{repeat}-x-{pick}",
                outcome=COMPLETED,
                reason="",
                arrival_s=float(arrivals[pick]),
                send_lag_s=0.001,
                ttft_s=float(times[0] - arrivals[pick]),
                latency_s=float(times[-1] - arrivals[pick]),
                prompt_tokens=12,
                output_tokens=length,
                finish_reason="stop",
                digest=str(length),
                token_times_s=tuple(float(t) for t in times),
                token_counts=tuple(counts),
            )
        )
    return sorted(out, key=lambda o: o.index)


def make_run(arm: str, repeat: int, order: int, outcomes: list[Outcome]) -> Run:
    page = {"vllm:num_preemptions_total": 0.0}
    engine = None if arm == "fcfs" else EngineState(True, "", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    after = (
        None if engine is None else replace(engine, policy_preemptions=9, recomputed_tokens=900, steps=4000)
    )
    client = ClientRun(tuple(outcomes), 30.0, (0.001, 0.002))
    return Run(arm, repeat, order, client, Counters(page, engine), Counters(page, after))


def make_results(arms: tuple[str, ...] = ARMS, repeats: int = 3, *, spoil: bool = False) -> dict[str, Any]:
    """A whole results object; `spoil` makes one answer of the last arm differ and another cut."""
    records = []
    for repeat in range(repeats):
        reference = None
        for order, arm in enumerate(arms):
            outcomes = simulate(order / max(len(arms) - 1, 1), repeat)
            if spoil and arm == arms[-1] and repeat == 0:
                outcomes[0] = replace(outcomes[0], digest="other")
                outcomes[1] = replace(
                    outcomes[1], outcome=CUT, reason="<b>gone</b>", latency_s=None, digest=""
                )
            run = make_run(arm, repeat, order, outcomes)
            record = run_record(run, reference)
            if arm not in ("fcfs",):
                record["prediction"] = {
                    "requests": 150,
                    "without_initial": 0,
                    "initial_sources": {"prompt": 150},
                    "initial_mae_tokens": 46.0,
                    "predictions": 15000,
                    "refined_mae_tokens": 24.0 + order,
                    "countdown_mae_tokens": 61.0,
                }
            reference = reference or run
            records.append(record)
    meta = {
        "complete": True,
        "started_at": "2025-01-01T00:00:00+00:00",
        "seconds": 432.1,
        "seed": 7,
        "config": {
            "model": "demo <x>", "arms": list(arms), "load": "1.3x", "arrivals": "poisson", "requests": 150,
            "repeats": repeats, "vllm_args": ["--max-num-seqs", "16"],
        },
        "capacity": {
            "requests_per_s": 3.1, "tokens_per_s": 400.0, "mean_output_tokens": 121.0, "saturated_s": 9.0,
            "requests": 200,
        },
        "load": {"text": "poisson, 4.03 requests/s", "rate_per_s": 4.03, "times_capacity": 1.3},
        "versions": versions(),
        "host": host(),
        "servers": [],
    }  # fmt: skip
    return assemble(meta, arms, records)
