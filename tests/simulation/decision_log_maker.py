"""A decision log as a sidecar in shadow would leave one: requests of a simulated engine, in its own order."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trail.policy.spec import parse_policy
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Lognormal
from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Workload
from trail.simulation.run import simulate

STEPS = StepModel("made", 8e-3, 1e-4, 1e-5, 1e-8)
CONFIG = EngineConfig(
    slots=8, token_budget=8192, kv_blocks=4000, block_tokens=16, prediction_lag=2, initial_lag=2
)
EVERY = 8


class Made:
    """A workload with predictions, and what became of it in the engine's own order."""

    def __init__(self, requests: int = 400, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        output = np.maximum(rng.exponential(60.0, requests), 2).astype(np.int64)
        self.work = Workload(
            np.cumsum(rng.exponential(0.075, requests)), np.full(requests, 32, np.int64), output
        )
        self.predictions = Lognormal(0.4, 0.3).predict(self.work, EVERY, rng)
        self.served = self.under("fcfs")

    def under(self, policy: str, slowness: float = 1.0) -> Any:
        """What becomes of the requests under `policy`."""
        return simulate(CONFIG, STEPS.slower(slowness), self.work, parse_policy(policy), self.predictions)

    def records(self, policy: str = "trail-c0.2-shadow") -> list[dict[str, Any]]:
        """The log's lines, in order of the requests' ends."""
        head: list[dict[str, Any]] = [
            {"kind": "log", "format": 1, "version": "0"},
            {"kind": "engine", "engine": 0, "model": "made", "vllm": "0", "slots": CONFIG.slots,
             "kv_blocks": CONFIG.kv_blocks, "block_tokens": CONFIG.block_tokens, "context_tokens": 1024},
        ]  # fmt: skip
        ends = self.work.arrival_s + self.served.latency_s
        return head + [self._request(int(i), policy) for i in np.argsort(ends)]

    def _request(self, i: int, policy: str) -> dict[str, Any]:
        first, n = int(self.predictions.first[i]), int(self.work.output_tokens[i])
        ages = range(EVERY, n, EVERY)
        return {
            "kind": "request", "engine": 0, "id": f"cmpl-r{i}-0-00000000", "policy": policy, "generation": 1,
            "arrival_s": 1_000_000.0 + float(self.work.arrival_s[i]), "found": False,
            "prompt_tokens": int(self.work.prompt_tokens[i]), "output_tokens": n, "finish": "stop",
            "initial": float(self.predictions.initial[i]),
            "refined": [[age, float(self.predictions.refined[first + age // EVERY])] for age in ages],
            "queued_s": 0.0, "first_token_s": float(self.served.ttft_s[i]),
            "total_s": float(self.served.latency_s[i]), "policy_preemptions": 0, "memory_preemptions": 0,
            "recomputed_tokens": 0, "fallback_steps": 0,
        }  # fmt: skip


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
