"""`trail serve` as a process, with a way to its sidecar."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import psutil

from trail.serving.launch import Child
from trail.wire.names import ENV_METRICS_PORT

_POLL_S = 0.25
_STOP_S = 60.0
_DIRECTORY = re.compile(r"directory (\S*/trail-\w+)")


class ServedError(RuntimeError):
    """The server did not come up; the message ends with the end of its log."""


class Served:
    """`trail serve ARGUMENTS` on a free loopback port, with `env` beside this process's variables."""

    def __init__(self, arguments: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
        command = [sys.executable, "-m", "trail", "serve", *arguments]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        # No fixed metrics port: another server may run on this machine.
        variables = {**os.environ, ENV_METRICS_PORT: "-1", **(env or {})}
        self._child = Child("trail serve", command, variables, log)
        self._log = log
        self.base_url = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """Process id of `trail serve`, whose children are the server and the sidecar."""
        return self._child.pid

    @property
    def directory(self) -> Path:
        """The shared directory. Raises ServedError where the log does not name it."""
        found = _DIRECTORY.search(self._log.read_text(encoding="utf-8", errors="replace"))
        if found is None:
            raise ServedError(f"{self._log} names no shared directory")
        return Path(found[1])

    def sidecar_pid(self) -> int | None:
        """Process id of the sidecar that runs at present; None while there is none."""
        for child in psutil.Process(self._child.pid).children():
            try:
                if "sidecar" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return int(child.pid)
            except psutil.NoSuchProcess:
                continue
        return None

    def signal_sidecar(self, number: signal.Signals) -> None:
        """Send `number` to the sidecar. Raises ServedError where none runs."""
        pid = self.sidecar_pid()
        if pid is None:
            raise ServedError("there is no sidecar to send a signal to")
        os.kill(pid, number)

    async def until_healthy(self, http: aiohttp.ClientSession, limit_s: float) -> None:
        """Return once the server answers. Raises ServedError."""
        deadline_s = time.monotonic() + limit_s
        while True:
            if (code := self._child.exit_code()) is not None:
                raise ServedError(f"trail serve ended with {code}\n{self._child.log_tail()}")
            try:
                async with http.get(f"{self.base_url}/health") as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, OSError):
                pass
            if time.monotonic() > deadline_s:
                raise ServedError(f"no answer within {limit_s:g} s\n{self._child.log_tail()}")
            await asyncio.sleep(_POLL_S)

    def stop(self) -> None:
        """SIGTERM; returns when server and sidecar have ended."""
        self._child.stop(_STOP_S)
