"""Simulated engines as pods of a workload, with real Redis and the real loop; part of loop_check."""

import asyncio
import math
import threading
import time
from dataclasses import replace

import numpy as np
from loop_kit import REPORT

from benchmarks.control.constant import EVERY_TOKENS, constant
from benchmarks.control.order import INTERVAL_S, ControlledOrder
from benchmarks.control.settings import Setting
from trail.policy.controller import LEVELS, Objective, Pressure
from trail.policy.spec import PolicySpec
from trail.sidecar.pacing import SHARED_CORES
from trail.sidecar.redis.config import RedisConfig
from trail.sidecar.redis.link import RedisLink
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.predictors import Lognormal
from trail.simulation.engine.steptime import TICKS_PER_S, StepTicks
from trail.wire.redis_schema import ControlRecord, PodReport
from trail_operator.control.loop import Change, ControlLoop, Target
from trail_operator.control.store import Store, connect

REAL_INTERVAL_S = 0.25
"""Of wall time, in which INTERVAL_S of the simulated engine's pass."""
START_C = 0.8


class EnginePod:
    """A simulated engine that waits for Redis between two stretches of its time."""

    def __init__(
        self, url: str, workload: str, name: str, setting: Setting, requests: int, seed: int
    ) -> None:
        self.setting, self.spec = setting, PolicySpec(setting.policy)
        self.work = setting.workload(requests, seed)
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0x52]))
        self.predictions = Lognormal().predict(self.work, EVERY_TOKENS, rng)
        self.c = START_C
        self.latency_s = self.ttft_s = math.nan
        self._pressure: Pressure | None = None
        self._link = RedisLink(
            RedisConfig(url, workload, name),
            replace(SHARED_CORES, redis_report_every_s=REAL_INTERVAL_S, redis_reread_every_s=1.0),
            report=self._report, apply=self._apply,
        )  # fmt: skip
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._link.start()
        self.thread.start()

    def value(self, objective: Objective) -> float:
        return objective.latency_weight * self.latency_s + objective.ttft_weight * self.ttft_s

    def _run(self) -> None:
        engine = Engine(self.setting.engine, self.work, StepTicks.of(self.setting.model))
        engine.run(ControlledOrder(replace(self.spec, c=self.c), engine, self.predictions, self._turn))
        journal, arrival_s = engine.journal, self.work.arrival_s
        self.latency_s = float((np.array(journal.end) / TICKS_PER_S - arrival_s).mean())
        self.ttft_s = float((np.array(journal.first_token) / TICKS_PER_S - arrival_s).mean())
        self._link.stop()

    def _turn(self, pressure: Pressure) -> float:
        self._pressure = pressure
        time.sleep(REAL_INTERVAL_S)
        return self.c

    def _report(self) -> PodReport:
        p = self._pressure
        if p is None:
            return replace(
                REPORT, interval_s=INTERVAL_S, waiting=0.0, recompute_cost=math.nan, preemptions_s=0.0
            )
        shared = {name: getattr(p, name) for name in Pressure.__dataclass_fields__}
        return replace(REPORT, **shared, c=self.c, generation=self._link.generation)

    def _apply(self, record: ControlRecord) -> None:
        self.c = record.c


def load_step(url: str, setting: Setting, *, pods: int, requests: int) -> dict[str, object]:
    """One workload of `pods` engines over a load step: the objective of the loop beside each constant c."""
    workload, objective = "lab/deployment/engines", Objective()
    there = [EnginePod(url, workload, f"engine-{i}", setting, requests, 900 + i) for i in range(pods)]
    changes: list[Change] = []

    async def control() -> None:
        async def hear(change: Change) -> None:
            changes.append(change)

        store = Store(connect(url))
        loop = ControlLoop(store, is_leader=lambda: True, on_change=hear, interval_s=REAL_INTERVAL_S)
        loop.set_target(workload, Target(objective))
        stop = asyncio.Event()
        task = asyncio.create_task(loop.run(stop))
        for pod in there:
            pod.start()
        while any(pod.thread.is_alive() for pod in there):
            await asyncio.sleep(0.1)
        await loop.remove(workload)
        stop.set()
        await task
        await store.close()

    asyncio.run(control())
    own = float(np.mean([pod.value(objective) for pod in there]))
    constants = {}
    for c in LEVELS:
        runs = [
            constant(setting, p.work, p.predictions, replace(p.spec, c=c)).value(objective) for p in there
        ]
        constants[f"{c:g}"] = float(np.mean(runs))
    best = min(constants, key=constants.__getitem__)
    return {
        "name": setting.name,
        "pods": pods,
        "requests": pods * requests,
        "regret": own / constants[best] - 1,
        "best_c": float(best),
        "objective_s": own,
        "constant": {c: value / constants[best] - 1 for c, value in constants.items()},
        "c": [change.c for change in changes],
    }
