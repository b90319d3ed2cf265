"""One vLLM server of a benchmark, stock or with TRAIL: start, wait until ready, read counters, stop."""

import asyncio
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from trail.bench.control import Control, ControlError, EngineState
from trail.bench.prometheus import RUNNING, WAITING, parse_samples
from trail.serving.launch import (
    Child,
    TrailSetup,
    make_shared_directory,
    remove_shared_directory,
    sidecar_command,
    vllm_command,
    with_trail,
)
from trail.serving.setup import ModelSource, PredictorSource, merge_args, serving_environment

_POLL_S = 0.25
_VLLM_GRACE_S = 15.0
_SIDECAR_GRACE_S = 10.0
_IDLE_TIMEOUT_S = 60.0
_SETTLE_S = 0.5
_ENGINE_REPORT_TIMEOUT_S = 30.0


class ServerError(Exception):
    """A server did not start, or stopped answering; the message ends with the end of its log."""


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
        self._model, self._predictor, self._args = model, predictor, args
        self._policy, self._logs, self.name = policy, logs, name
        self._start_timeout_s = start_timeout_s
        self._vllm: Child | None = None
        self._sidecar: Child | None = None
        self._directory: Path | None = None
        self._control: Control | None = None
        self._http: aiohttp.ClientSession | None = None
        self.base_url = ""
        self.started_in_s = 0.0

    @property
    def stats_file(self) -> Path:
        """Where the sidecar leaves its statistics when it stops."""
        return self._logs / f"{self.name}-sidecar.json"

    @property
    def control(self) -> Control:
        """The sidecar's control service; only on a running server with TRAIL."""
        if self._control is None:
            raise ServerError(f"server {self.name} has no sidecar")
        return self._control

    async def start(self) -> None:
        """Start and wait until the server answers and, with TRAIL, the engine has reported to the sidecar."""
        began_s = time.monotonic()
        port = _free_port()
        env = serving_environment(os.environ, local_model=self._model.local, cpus=os.cpu_count())
        env["VLLM_NO_USAGE_STATS"] = "1"
        env["VLLM_SERVER_DEV_MODE"] = "1"  # /reset_prefix_cache: every run begins with an empty cache
        if self._predictor is not None:
            self._directory = make_shared_directory()
            setup = TrailSetup(
                self._directory,
                self._predictor.path,
                self._predictor.layer,
                self._policy,
                self.stats_file,
                metrics_port=-1,
            )
            self.stats_file.unlink(missing_ok=True)
            env = with_trail(env, setup)
            log = self._logs / f"{self.name}-sidecar.log"
            self._sidecar = Child("sidecar", sidecar_command(setup), env, log)
            self._control = Control(self._directory)
        ours = ("--host", "127.0.0.1", "--port", str(port))
        args = merge_args(self._model.default_args, [*self._args, *ours])
        self._vllm = Child(
            "vLLM", vllm_command(self._model.vllm_model, args), env, self._logs / f"{self.name}-vllm.log"
        )
        self.base_url = f"http://127.0.0.1:{port}"
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await self._until_healthy()
        if self._control is not None:
            await self._until_engine_reports()
        self.started_in_s = time.monotonic() - began_s

    async def stop(self) -> None:
        """Stop vLLM, then the sidecar (which writes its statistics), and remove what they shared."""
        if self._http is not None:
            await self._http.close()
        if self._vllm is not None:
            await asyncio.to_thread(self._vllm.stop, _VLLM_GRACE_S)
        if self._control is not None:
            self._control.close()
        if self._sidecar is not None:
            await asyncio.to_thread(self._sidecar.stop, _SIDECAR_GRACE_S)
        if self._directory is not None:
            remove_shared_directory(self._directory)
        self._http = self._vllm = self._control = self._sidecar = self._directory = None

    async def reset_prefix_cache(self) -> None:
        """Empty the prefix cache, so that no run profits from the one before."""
        for _ in range(20):
            async with self._session().post(f"{self.base_url}/reset_prefix_cache") as response:
                if response.status == 200 and (await response.json()).get("success", True):
                    return
            await asyncio.sleep(_POLL_S)
        raise ServerError(f"server {self.name} does not empty its prefix cache ({self._why()})")

    async def counters(self) -> Counters:
        """Counters once the engine is idle and has reported its last totals, so that nothing is missed."""
        deadline_s = time.monotonic() + _IDLE_TIMEOUT_S
        before: EngineState | None = None
        while True:
            samples = await self._metrics()
            engine = None if self._control is None else await asyncio.to_thread(self._control.state)
            idle = samples.get(RUNNING, 0) + samples.get(WAITING, 0) == 0
            if engine is not None:
                idle = idle and engine.open_requests == 0 and engine == before
                before = engine
            if idle:
                return Counters(samples, engine)
            if time.monotonic() > deadline_s:
                raise ServerError(f"server {self.name} does not become idle: {engine}\n{self._why()}")
            await asyncio.sleep(_SETTLE_S)

    async def _metrics(self) -> dict[str, float]:
        try:
            async with self._session().get(f"{self.base_url}/metrics") as response:
                return parse_samples(await response.text())
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise ServerError(f"server {self.name} does not answer: {e}\n{self._why()}") from e

    async def _until_healthy(self) -> None:
        deadline_s = time.monotonic() + self._start_timeout_s
        while True:
            self._raise_if_ended()
            try:
                async with self._session().get(f"{self.base_url}/health") as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, OSError):
                pass
            if time.monotonic() > deadline_s:
                raise ServerError(
                    f"server {self.name} is not ready after {self._start_timeout_s:g} s; see --start-timeout"
                    f"\n{self._why()}"
                )
            await asyncio.sleep(_POLL_S)

    async def _until_engine_reports(self) -> None:
        deadline_s = time.monotonic() + _ENGINE_REPORT_TIMEOUT_S
        last = "no engine has said hello, or the prompt predictor is still loading"
        while time.monotonic() < deadline_s:
            self._raise_if_ended()
            try:
                state = await asyncio.to_thread(self.control.state)
                if state.problem:
                    raise ServerError(f"TRAIL makes no predictions on server {self.name}: {state.problem}")
                if state.ready:
                    return
            except ControlError as e:
                last = str(e)
            await asyncio.sleep(_POLL_S)
        raise ServerError(f"TRAIL did not come up on server {self.name}: {last}\n{self._why()}")

    def _raise_if_ended(self) -> None:
        for child in (self._vllm, self._sidecar):
            if child is not None and (code := child.exit_code()) is not None:
                raise ServerError(
                    f"{child.name} of server {self.name} ended with exit code {code}\n{self._why()}"
                )

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise ServerError(f"server {self.name} is not running")
        return self._http

    def _why(self) -> str:
        parts = [f"{c.log}:\n{c.log_tail()}" for c in (self._vllm, self._sidecar) if c is not None]
        return "\n".join(parts)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
