"""Many simulations: arms by loads by seeds, on all cores, the same whatever the number of cores.

The record of every run is kept (`trail.simulation.cache`), so that what was interrupted goes on.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trail.bench.arrivals import read_trace
from trail.bench.config import Arm, Arrivals, Load
from trail.report.stats import Capacity
from trail.simulation.cache import Cache
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Predictions, Predictor
from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Source, Workload, seeded
from trail.simulation.run import measure_capacity, run_record, simulate

CAPACITY_REQUESTS = 20_000
"""Requests that the capacity is measured with, where the workload is a pool or longer than that."""
_PREDICTIONS = 0x52


@dataclass(frozen=True)
class Setting:
    """What all runs of a sweep have in common. `requests` None: all of a recording."""

    source: Source
    arrivals: Arrivals
    engine: EngineConfig
    model: StepModel
    predictor: Predictor
    every: int
    requests: int | None
    keep: int
    """Requests written out of each run, at most."""

    def workload(self, load: Load, rate_per_s: float | None, seed: int) -> Workload:
        """The requests of one seed at a load; `rate_per_s` None: as they were recorded, or all at once."""
        times = None
        if self.arrivals.trace is not None:
            times = read_trace(self.arrivals.trace, self.requests or len(self.source.lengths().output_tokens))
        work = seeded(self.source, self.requests, self.arrivals, seed, trace_s=times)
        if rate_per_s is None or self.arrivals.kind == "burst" or load.text == "trace":
            return work
        return work.at_rate(rate_per_s)

    def predictions(self, work: Workload, seed: int) -> Predictions:
        """What is predicted of `work`, the same for every arm and load."""
        rng = np.random.default_rng(np.random.SeedSequence([seed, _PREDICTIONS]))
        return self.predictor.predict(work, self.every, rng)

    def capacity(self) -> Capacity:
        """Of the stock engine, for these lengths."""
        lengths = self.source.lengths()
        n = min(len(lengths.output_tokens), CAPACITY_REQUESTS) if self.source.recorded else CAPACITY_REQUESTS
        return measure_capacity(self.engine, self.model, seeded(self.source, n, Arrivals("burst"), 0))


@dataclass(frozen=True)
class Job:
    """One run. `rate_per_s` is what the load comes to."""

    arm: Arm
    load: Load
    rate_per_s: float | None
    seed: int
    repeat: int
    order: int


def jobs(
    arms: Sequence[Arm], loads: Sequence[Load], seeds: Sequence[int], capacity: Capacity | None
) -> list[Job]:
    """All runs, those of one load and seed together."""
    made: list[Job] = []
    for load in loads:
        rate = load.rate_per_s
        if load.times_capacity is not None and capacity is not None:
            rate = load.times_capacity * capacity.requests_per_s
        for repeat, seed in enumerate(seeds):
            made += [Job(arm, load, rate, seed, repeat, len(made) + i) for i, arm in enumerate(arms)]
    return made


def run_job(setting: Setting, job: Job) -> dict[str, Any]:
    """The record of one run. Raises ValueError where parts do not fit together."""
    work, predictions = _prepared(setting, job.load, job.rate_per_s, job.seed)
    policy = job.arm.policy
    served = simulate(setting.engine, setting.model, work, policy, predictions)
    shown = predictions if policy.orders and policy.name not in ("mlfq", "oracle") else None
    return run_record(
        served, arm=job.arm.name, repeat=job.repeat, order=job.order, predictions=shown, keep=setting.keep
    )


_last: tuple[Any, tuple[Workload, Predictions]] | None = None


def _prepared(
    setting: Setting, load: Load, rate_per_s: float | None, seed: int
) -> tuple[Workload, Predictions]:
    """The arms of one load and seed follow one another and share what they are given."""
    global _last  # noqa: PLW0603 - one entry, in a worker's own process
    key = (id(setting), load, rate_per_s, seed)
    if _last is None or _last[0] != key:
        work = setting.workload(load, rate_per_s, seed)
        _last = (key, (work, setting.predictions(work, seed)))
    return _last[1]


_setting: Setting | None = None


def _start_worker(setting: Setting) -> None:
    global _setting  # noqa: PLW0603 - sent once to each worker, not with every job
    _setting = setting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers


def _work(job: Job) -> dict[str, Any]:
    assert _setting is not None  # noqa: S101 - set when the worker started
    return run_job(_setting, job)


def run_jobs(
    setting: Setting,
    todo: Sequence[Job],
    *,
    directory: Path,
    processes: int | None = None,
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Records of all jobs as they come; those found in `directory` are read, the others cached there.

    On an interrupt running simulations are ended at once. `processes` None: as many as there are cores.
    """
    cache = Cache(directory, __name__)
    common = cache.key(setting)
    keys = {job: cache.key(common, job.arm, job.load, job.rate_per_s, job.seed) for job in todo}
    missing: list[Job] = []
    for job in todo:
        record = cache.read(keys[job])
        if record is None:
            missing.append(job)
        else:
            yield job, {**record, "repeat": job.repeat, "order": job.order}
    count = min(processes or len(os.sched_getaffinity(0)), len(missing))
    if count <= 1:
        for job in missing:
            record = run_job(setting, job)
            cache.write(keys[job], record)
            yield job, record
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(setting,))
    workers = pool._processes  # no public way to end running jobs before Python 3.14
    try:
        futures: dict[Future[dict[str, Any]], Job] = {pool.submit(_work, job): job for job in missing}
        for future in as_completed(futures):
            job, record = futures[future], future.result()
            cache.write(keys[job], record)
            yield job, record
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(workers.values()):
            process.terminate()
        raise
    pool.shutdown()
