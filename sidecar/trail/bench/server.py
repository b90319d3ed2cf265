"""One vLLM server of a benchmark, stock or with TRAIL: start, wait until ready, read counters, stop."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from trail.bench.prometheus import RUNNING, WAITING, parse_samples
from trail.serving.control import Control, EngineState
from trail.serving.launch import TrailSetup, free_port
from trail.serving.setup import ModelSource, PredictorSource
from trail.serving.stack import ServerError, Stack

_POLL_S = 0.25
_IDLE_TIMEOUT_S = 60.0
_SETTLE_S = 0.5


@dataclass(frozen=True)
class Counters:
    """vLLM's Prometheus page, and the sidecar's view of the engine where TRAIL is on."""

    prometheus: dict[str, float]
    engine: EngineState | None


class Server:
    """A vLLM server on a free loopback port, with a sidecar beside it where `predictor` is given."""

    def __init__(
        self,
        model: ModelSource,
        predictor: PredictorSource | None,
        args: tuple[str, ...],
        *,
        policy: str,
        logs: Path,
        name: str,
        start_timeout_s: float,
    ) -> None:
        self.name = name
        self.stats_file = logs / f"{name}-sidecar.json"
        """Where the sidecar leaves its statistics when it stops."""
        trail = None
        if predictor is not None:
            trail = TrailSetup(
                predictor.path, predictor.layer, policy, stats_file=self.stats_file, metrics_port=-1
            )
        # /reset_prefix_cache is for development only: every run begins with an empty cache.
        environ = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_SERVER_DEV_MODE": "1"}
        self._stack = Stack(model, args, trail, environ=environ, log=logs / name, port=free_port())
        self._trail = trail is not None
        self._start_timeout_s = start_timeout_s
        self._http: aiohttp.ClientSession | None = None
        self.started_in_s = 0.0

    @property
    def base_url(self) -> str:
        """Where clients find it."""
        return self._stack.base_url

    @property
    def control(self) -> Control:
        """The sidecar's control service; only on a running server with TRAIL."""
        return self._stack.control

    async def start(self) -> None:
        """Start and wait until the server answers and, with TRAIL, the engine has reported to the sidecar."""
        began_s = time.monotonic()
        self.stats_file.unlink(missing_ok=True)
        self._stack.start()
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await asyncio.to_thread(self._stack.until_ready, self._start_timeout_s, "; see --start-timeout")
        self.started_in_s = time.monotonic() - began_s

    async def stop(self) -> None:
        """Stop vLLM, then the sidecar (which writes its statistics), and remove what they shared."""
        if self._http is not None:
            await self._http.close()
            self._http = None
        await asyncio.to_thread(self._stack.stop)

    async def reset_prefix_cache(self) -> None:
        """Empty the prefix cache, so that no run profits from the one before."""
        for _ in range(20):
            async with self._session().post(f"{self.base_url}/reset_prefix_cache") as response:
                if response.status == 200 and (await response.json()).get("success", True):
                    return
            await asyncio.sleep(_POLL_S)
        raise ServerError(f"server {self.name} does not empty its prefix cache ({self._stack.why()})")

    async def counters(self) -> Counters:
        """Counters once the engine is idle and has reported its last totals, so that nothing is missed."""
        deadline_s = time.monotonic() + _IDLE_TIMEOUT_S
        before: EngineState | None = None
        while True:
            samples = await self._metrics()
            engine = await asyncio.to_thread(self.control.state) if self._trail else None
            idle = samples.get(RUNNING, 0) + samples.get(WAITING, 0) == 0
            if engine is not None:
                idle = idle and engine.open_requests == 0 and engine == before
                before = engine
            if idle:
                return Counters(samples, engine)
            if time.monotonic() > deadline_s:
                raise ServerError(f"server {self.name} does not become idle: {engine}\n{self._stack.why()}")
            await asyncio.sleep(_SETTLE_S)

    async def _metrics(self) -> dict[str, float]:
        try:
            async with self._session().get(f"{self.base_url}/metrics") as response:
                return parse_samples(await response.text())
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise ServerError(f"server {self.name} does not answer: {e}\n{self._stack.why()}") from e

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise ServerError(f"server {self.name} is not running")
        return self._http
