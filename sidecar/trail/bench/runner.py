"""Carries a benchmark out: servers one at a time, capacity first, then every arm of every repeat."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trail.bench import arrivals
from trail.bench.client import ClientRun, run_requests
from trail.bench.config import Arm, BenchConfig
from trail.bench.plan import repeat_order
from trail.bench.predictions import errors_by_run, read_sidecar_stats
from trail.bench.record import Run, run_record
from trail.bench.results import assemble
from trail.bench.server import Server
from trail.bench.workload import BenchRequest, Prompt, build_requests, choose_prompts, repeat_rng
from trail.report.host import host, versions
from trail.report.stats import Capacity, saturated_capacity
from trail.serving.setup import ModelSource, PredictorSource
from trail.serving.stack import ServerError

# Streams of random numbers that no repeat uses; repeats count from 0.
_CAPACITY_STREAM = 1_000_000
_WARMUP_STREAM = 1_000_001


class Progress(Protocol):
    """Where the benchmark tells how far it is."""

    def phase(self, text: str, total: int) -> None:
        """Something begins that takes `total` requests; 0: it cannot be counted."""

    def advance(self, done: int) -> None:
        """`done` requests of the present phase have ended."""

    def run_done(self) -> None:
        """One run of one arm is complete."""


class Benchmark:
    """State of a benchmark under way; `results()` is valid at any time."""

    def __init__(
        self,
        config: BenchConfig,
        model: ModelSource,
        predictor: PredictorSource | None,
        prompts: Sequence[Prompt],
        *,
        context_tokens: int | None,
        progress: Progress,
        on_run: Callable[[], None],
    ) -> None:
        self._config, self._model, self._predictor = config, model, predictor
        self._prompts, self._context_tokens = prompts, context_tokens
        self._progress, self._on_run = progress, on_run
        self._server: Server | None = None
        self._server_is_stock = False
        self._servers: list[dict[str, Any]] = []
        self._records: list[dict[str, Any]] = []
        self._capacity: Capacity | None = None
        self._started = datetime.now(UTC)
        self._complete = False

    async def run(self) -> None:
        """Everything, one run after another. Raises ServerError; servers are stopped in any case."""
        config = self._config
        try:
            if config.needs_capacity:
                await self._measure_capacity()
            for repeat in range(config.repeats):
                requests = self._requests(repeat)
                reference: Run | None = None
                for arm in repeat_order(config.arms, repeat):
                    run = await self._run_arm(arm, repeat, requests, reference)
                    self._records.append(run_record(run, reference))
                    reference = reference or run
                    self._progress.run_done()
                    self._on_run()
        finally:
            await self._stop_server()
        self._complete = True

    def results(self) -> dict[str, Any]:
        """results.json as far as the benchmark has come."""
        config = self._config
        rate = self._rate_per_s()
        meta = {
            "complete": self._complete,
            "started_at": self._started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self._started).total_seconds(), 1),
            "seed": config.seed,
            "config": {
                "model": config.model,
                "predictor": str(self._predictor.path) if self._predictor else None,
                "arms": [a.name for a in config.arms],
                "load": config.load.text,
                "arrivals": config.arrivals.text,
                "prompts": str(config.prompts) if config.prompts else "demo",
                "requests": config.requests,
                "repeats": config.repeats,
                "temperature": config.temperature,
                "max_tokens": config.max_tokens,
                "stream_interval": config.stream_interval,
                "vllm_args": list(config.vllm_args),
            },
            "capacity": asdict(self._capacity) if self._capacity else None,
            "load": {
                "text": self._load_text(rate),
                "rate_per_s": rate,
                "times_capacity": self._relative(rate),
            },
            "versions": versions(),
            "host": host(),
            "servers": self._servers,
        }
        return assemble(meta, [a.name for a in config.arms], self._records)

    async def _measure_capacity(self) -> None:
        config = self._config
        server = await self._ensure_server(stock=True, policy=None)
        rng = repeat_rng(config.seed, _CAPACITY_STREAM)
        prompts = choose_prompts(self._prompts, config.capacity_requests, rng)
        requests = build_requests(prompts, arrivals.burst(len(prompts)), self._limits(prompts), rng)
        run = await self._send(server, requests, "capacity", "measuring the capacity of stock vLLM")
        outcomes = run.outcomes
        try:
            self._capacity = saturated_capacity(
                np.asarray([t for o in outcomes for t in o.token_times_s]),
                np.asarray([float(c) for o in outcomes for c in o.token_counts]),
                np.asarray([o.ttft_s for o in outcomes if o.ttft_s is not None]),
                np.asarray([float(o.output_tokens) for o in outcomes if o.output_tokens]),
            )
        except ValueError as e:
            reasons = "; ".join(sorted({o.reason for o in outcomes if o.reason})[:3])
            raise ServerError(f"the capacity cannot be measured: {e}. {reasons}") from e

    async def _run_arm(
        self, arm: Arm, repeat: int, requests: Sequence[BenchRequest], reference: Run | None
    ) -> Run:
        server = await self._ensure_server(stock=arm.stock, policy=arm)
        if not arm.stock:
            server.control.set_policy(arm.policy)
        await server.reset_prefix_cache()
        before = await server.counters()
        exact = reference.lengths() if arm.needs_lengths and reference is not None else None
        title = f"repeat {repeat + 1} of {self._config.repeats}: {arm.name}"
        client = await self._send(server, requests, run_id(repeat, arm), title, exact)
        after = await server.counters()
        return Run(arm.name, repeat, len(self._records), client, before, after)

    async def _send(
        self,
        server: Server,
        requests: Sequence[BenchRequest],
        name: str,
        title: str,
        exact: dict[int, int] | None = None,
    ) -> ClientRun:
        config = self._config
        self._progress.phase(title, len(requests))
        return await run_requests(
            server.base_url,
            requests,
            model=self._model.served_name,
            temperature=config.temperature,
            run_id=name,
            timeout_s=config.request_timeout_s,
            exact_tokens=exact,
            on_progress=lambda _sent, done: self._progress.advance(done),
        )

    async def _ensure_server(self, *, stock: bool, policy: Arm | None) -> Server:
        if self._server is not None and self._server_is_stock == stock:
            return self._server
        await self._stop_server()
        config = self._config
        name = f"{len(self._servers)}-{'stock' if stock else 'trail'}"
        self._progress.phase(f"starting {'stock vLLM' if stock else 'vLLM with TRAIL'}", 0)
        server = Server(
            self._model,
            None if stock else self._predictor,
            config.vllm_args,
            policy=policy.name if policy else "fcfs",
            logs=config.out / "logs",
            name=name,
            start_timeout_s=config.start_timeout_s,
        )
        self._server, self._server_is_stock = server, stock
        await server.start()
        rng = repeat_rng(config.seed, _WARMUP_STREAM)
        prompts = choose_prompts(self._prompts, config.warmup_requests, rng)
        warmup = build_requests(prompts, arrivals.burst(len(prompts)), self._limits(prompts), rng)
        run = await self._send(server, warmup, f"warm-up-{name}", "warming up")
        if warmup and not any(o.output_tokens for o in run.outcomes):
            raise ServerError(f"no warm-up request succeeded; the first says: {run.outcomes[0].reason}")
        self._servers.append({"name": name, "stock": stock, "started_in_s": round(server.started_in_s, 1)})
        return server

    async def _stop_server(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._progress.phase("stopping the server", 0)
        await _to_the_end(server.stop())
        if self._server_is_stock:
            return
        stats = read_sidecar_stats(server.stats_file)
        if stats is None:
            return
        errors = errors_by_run(stats.get("requests", ()))
        for record in self._records:
            key = f"r{record['repeat']}-{record['arm']}"
            if key in errors:
                record["prediction"] = errors[key]
        for entry in self._servers:
            if entry["name"] == server.name:
                entry["sidecar"] = {k: v for k, v in stats.items() if k != "requests"}

    def _requests(self, repeat: int) -> list[BenchRequest]:
        rng = repeat_rng(self._config.seed, repeat)
        prompts = choose_prompts(self._prompts, self._config.requests, rng)
        return build_requests(prompts, self._arrivals(rng), self._limits(prompts), rng)

    def _arrivals(self, rng: np.random.Generator) -> NDArray[np.float64]:
        config, rate = self._config, self._rate_per_s()
        if config.arrivals.kind == "burst":
            return arrivals.burst(config.requests)
        if config.arrivals.trace is not None:
            times = arrivals.read_trace(config.arrivals.trace, config.requests)
            return times if rate is None else arrivals.rescale(times, rate)
        if rate is None:
            raise ServerError("the arrival rate is not known: no capacity was measured")
        return arrivals.gamma_gaps(config.requests, rate, config.arrivals.scv, rng)

    def _limits(self, prompts: Sequence[Prompt]) -> list[int]:
        """max_tokens of each request, so that prompt and answer fit the model's context."""
        limit = self._config.max_tokens
        if self._context_tokens is None:
            return [limit] * len(prompts)
        return [max(1, min(limit, self._context_tokens - len(p.token_ids or ()))) for p in prompts]

    def _rate_per_s(self) -> float | None:
        load = self._config.load
        if self._config.arrivals.kind == "burst":
            return None
        if load.times_capacity is not None:
            return load.times_capacity * self._capacity.requests_per_s if self._capacity else None
        return load.rate_per_s

    def _relative(self, rate: float | None) -> float | None:
        return rate / self._capacity.requests_per_s if rate and self._capacity else None

    def _load_text(self, rate: float | None) -> str:
        if self._config.arrivals.kind == "burst":
            return "burst: everything arrives at once"
        if rate is None:
            return f"{self._config.arrivals.text} on its own clock"
        relative = self._relative(rate)
        times = f" = {relative:.2f} x stock capacity" if relative else ""
        return f"{self._config.arrivals.text}, {rate:.2f} requests/s{times}"


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end even when cancelled meanwhile: a server half stopped would be left behind."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def run_id(repeat: int, arm: Arm) -> str:
    """Begins the ids of a run's requests, by which the sidecar's statistics are told apart."""
    return f"r{repeat}-{arm.name}"


def elapsed_text(since_s: float) -> str:
    """`3 min 20 s` since a reading of the monotonic clock."""
    minutes, seconds = divmod(int(time.monotonic() - since_s), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
