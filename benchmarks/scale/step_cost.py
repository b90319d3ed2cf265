"""`python -m benchmarks.scale.step_cost`: what TRAIL adds to a `schedule()` of vLLM with a long queue.

vLLM's own scheduler with TRAIL's, without a model; TRAIL's part is what the step takes beyond vLLM's own
`schedule()`. A line for each policy and each of CASES, and build/scale/step_cost.json. Wall time, and the CPU
time of the thread, which other work on the machine does not lengthen.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bare_scheduler import bare_request, give_tokens, scheduler_arguments
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import RequestStatus

from trail.engine.order.scheduler import TrailScheduler
from trail.policy.ranks import Terms
from trail.policy.spec import PolicySpec, parse_policy
from trail.report.host import host, versions
from trail.wire import names
from trail.wire.board import BOARD_ROW, BoardHeader, BoardWriter
from trail.wire.files import write_json

POLICIES = ("trail", "adaptive-c0.2")
CASES = {
    "between updates": "the board stands still",
    "nothing changed": "predictions of those that run are new, of those that wait none is",
    "order changed": "every prediction is new, and nobody gives way",
    "slots change hands": "every prediction is new, and four of those that run give way",
    "queue moves": "four requests end, four start and four arrive",
}
AT_ONCE = 4
PROMPT, OUTPUT, BLOCK = 32, 460, 16
WARM_UP = 20


class StockClock:
    """Measures vLLM's own `schedule()` inside TRAIL's."""

    def __init__(self) -> None:
        self.took = np.zeros(2)
        stock: Callable[..., Any] = AsyncScheduler.schedule

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = now()
            try:
                return stock(*args, **kwargs)
            finally:
                self.took = now() - began

        AsyncScheduler.schedule = timed


def now() -> np.ndarray:
    """Wall time and the thread's CPU time, in milliseconds."""
    return np.array([time.perf_counter_ns(), time.thread_time_ns()]) / 1e6


class Bench:
    """One engine with a full batch and a long queue, and the board that it reads."""

    def __init__(self, directory: Path, spec: PolicySpec, waiting: int, running: int) -> None:
        os.environ |= {names.ENV_ENABLED: "1", names.ENV_DIR: str(directory)}
        self.spec, self.rng = spec, np.random.default_rng(0)
        rows = 2 * (waiting + running) + 4096
        self.writer = BoardWriter.create(names.board_path(directory, 0), rows)
        self.writer.beat()
        blocks = running * (PROMPT + OUTPUT + BLOCK) // BLOCK + 8192
        self.scheduler = TrailScheduler(
            **scheduler_arguments(slots=running, token_budget=8192, kv_blocks=blocks, block_tokens=BLOCK)
        )
        self.table = self.scheduler._trail._table
        self.count = 0
        self.add(running)
        self.step()
        self.add(waiting)
        self.publish(self.slots())

    def add(self, requests: int) -> None:
        for _ in range(requests):
            self.scheduler.add_request(bare_request(self.count, PROMPT, OUTPUT, BLOCK))
            self.count += 1

    def slots(self, requests: Any = None) -> np.ndarray:
        ids = self.table.by_id if requests is None else [r.request_id for r in requests]
        return np.array([self.table.by_id[i] for i in ids], np.int64)

    def publish(self, slots: np.ndarray, urgent: int = 0) -> None:
        """New predictions at `slots`: those that wait are longer than those that run, but for `urgent`."""
        runs = np.isin(slots, self.slots(self.scheduler.running))
        rows = np.zeros(len(slots), BOARD_ROW)
        rows["key"] = self.table.key[slots]
        rows["rank"] = np.where(
            runs, self.rng.uniform(50, 90, len(slots)), self.rng.uniform(100, 999, len(slots))
        )
        rows["rank"][self.rng.permutation(np.flatnonzero(~runs))[:urgent]] = 1.0
        rows["initial"], rows["cutoff"], rows["age"] = rows["rank"], 10**6, self.table.age[slots]
        terms = Terms.of(self.spec, mean_initial=300.0, mean_prompt=float(PROMPT), wait_s=30.0, token_s=0.02)
        self.writer.publish(slots, rows, BoardHeader(1, 0, 0, **vars(terms)))

    def change(self, case: str) -> None:
        """What happens before a step."""
        if case == "nothing changed":
            self.publish(self.slots(self.scheduler.running))
        elif case == "order changed":
            self.publish(self.slots())
        elif case == "slots change hands":
            self.publish(self.slots(), urgent=AT_ONCE)
        elif case == "queue moves":
            done = [r.request_id for r in self.scheduler.running[:AT_ONCE]]
            self.scheduler.finish_requests(done, RequestStatus.FINISHED_ABORTED)
            self.add(AT_ONCE)
            self.publish(self.slots(self.scheduler.running))
        else:
            self.writer.beat()

    def step(self) -> Any:
        output = self.scheduler.schedule()
        give_tokens(self.scheduler, output)
        return output

    def measure(self, case: str, steps: int, stock: StockClock) -> dict[str, Any]:
        """Milliseconds of TRAIL's part and of vLLM's own, over `steps` steps."""
        own, vllm = [], []
        for step in range(WARM_UP + steps):
            self.change(case)
            began = now()
            output = self.scheduler.schedule()
            took = now() - began
            if step >= WARM_UP:
                own.append(took - stock.took)
                vllm.append(stock.took)
            give_tokens(self.scheduler, output)
        side = self.scheduler._trail
        return {
            "case": case,
            "what": CASES[case],
            "steps": steps,
            "trail_ms": quantiles(own),
            "vllm_ms": quantiles(vllm),
            "policy_preemptions": side._ordering.policy_preemptions,
            "fallback_steps": side._ordering.fallback_steps,
        }

    def close(self) -> None:
        self.scheduler._trail.stop(wait_s=1.0)
        self.writer.close(unlink=True)


def quantiles(times: list[np.ndarray]) -> dict[str, float]:
    """p50 and p99 of wall and CPU milliseconds [n, 2]."""
    columns = zip(("wall", "cpu"), np.array(times).T, strict=True)
    return {
        f"{clock}_{name}": round(float(np.percentile(column, q)), 4)
        for clock, column in columns
        for name, q in (("p50", 50), ("p99", 99))
    }


def main() -> int:
    """Runs every case and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/scale"))
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--running", type=int, default=256)
    parser.add_argument("--steps", type=int, default=300, help="of each case")
    parser.add_argument("--policies", default=",".join(POLICIES))
    args = parser.parse_args()
    stock, results = StockClock(), []
    for policy in args.policies.split(","):
        for case in CASES:
            with tempfile.TemporaryDirectory() as directory:
                bench = Bench(Path(directory), parse_policy(policy), args.waiting, args.running)
                gc.collect()
                gc.freeze()  # as vLLM's engine core does
                found = {"policy": policy, **bench.measure(case, args.steps, stock)}
                bench.close()
            results.append(found)
            print(
                f"{policy:14} {case:19} TRAIL {_line(found['trail_ms'])}   vLLM {_line(found['vllm_ms'])}",
                flush=True,
            )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "step_cost.json"
    size = {"waiting": args.waiting, "running": args.running}
    write_json(path, {**size, "cases": results, "host": host(), "versions": versions()})
    print(f"written: {path}")
    return 0


def _line(found: dict[str, float]) -> str:
    return "  ".join(
        f"{clock} p50 {found[f'{clock}_p50']:.2f} p99 {found[f'{clock}_p99']:.2f} ms"
        for clock in ("wall", "cpu")
    )


if __name__ == "__main__":
    sys.exit(main())
