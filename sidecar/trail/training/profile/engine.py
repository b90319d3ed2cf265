"""The recorder's side of vLLM's process: start, requests, messages, stop."""

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from trail.serving.launch import (
    Child,
    make_shared_directory,
    remove_shared_directory,
)
from trail.serving.setup import serving_environment
from trail.wire import names
from trail.wire.frames import FrameReader, RingSpec

_RING_BYTES = 32 << 20
_HEARTBEAT_MS = 60_000
"""How long the recorder may be held up, by the disk for example, before the engine takes it for dead."""
_END_S = 20.0
_POLL_S = 0.1


class EngineError(Exception):
    """vLLM did not start, or ended; the message says what it said last."""


@dataclass(frozen=True)
class EngineFacts:
    """What only the running engine knows. `slots`: requests it runs at a time."""

    vllm_version: str
    dtype: str
    max_model_len: int
    hidden_size: int
    slots: int


@dataclass(frozen=True)
class EngineSpec:
    """What the engine is to run. `args` are vLLM's own command-line arguments, the model among them."""

    args: Sequence[str]
    local_model: bool
    layers: Sequence[int]
    hidden_size: int
    every: int
    temperature: float
    top_p: float
    max_tokens: int


class Engine:
    """vLLM with TRAIL's export, and the lossless ring it exports to. A context manager.

    Nothing of it outlives this process: the child ends with the connection, killed or not.
    """

    def __init__(self, spec: EngineSpec, log: Path) -> None:
        """`log` takes all that vLLM writes."""
        self._spec = spec
        self._log = log
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Engine":
        """Start the process; it takes a while until it is ready."""
        with contextlib.ExitStack() as stack:
            directory = make_shared_directory()
            stack.callback(remove_shared_directory, directory)
            self.ring = FrameReader.create(names.ring_path(directory, 0), _ring(self._spec))
            stack.callback(self.ring.close, unlink=True)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(directory / "requests.sock"))
            listener.listen(1)
            listener.settimeout(_POLL_S)
            child = Child("vLLM", self._command(directory), self._environment(directory), self._log)
            stack.callback(child.stop, _END_S)
            self._child = child
            self._connection = stack.enter_context(self._accepted(listener))
            stack.callback(self._wait_for_end)
            stack.callback(self._disconnect)
            threading.Thread(target=self._receive, daemon=True).start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait_ready(self) -> EngineFacts:
        """Return when the engine takes requests, however long it loads. Raises EngineError."""
        while True:
            message = self.message(1.0)
            self.ring.beat()
            if message is not None:
                return EngineFacts(**message["ready"])

    def submit(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Send requests, each with `id`, `prompt` (token ids) and `seed`. Raises EngineError."""
        try:
            self._connection.sendall(json.dumps(list(requests)).encode() + b"\n")
        except OSError as error:
            raise self._ended() from error

    def message(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message, None where none came in time. Raises EngineError when the engine has ended."""
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            raise self._ended()
        if "failed" in message:
            raise EngineError(f"{message['failed']} (all of vLLM's log: {self._log})")
        return message

    def _ended(self) -> EngineError:
        return EngineError(f"vLLM ended; its log {self._log} ends with:\n{self._child.log_tail()}")

    def _command(self, directory: Path) -> list[str]:
        spec = self._spec
        content = {
            "socket": str(directory / "requests.sock"),
            "directory": str(directory),
            "args": list(spec.args),
            "layers": list(spec.layers),
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "max_tokens": spec.max_tokens,
        }
        return [sys.executable, "-m", "trail.training.profile.engine_run", json.dumps(content)]

    def _environment(self, directory: Path) -> dict[str, str]:
        spec = self._spec
        env = serving_environment(os.environ, local_model=spec.local_model, cpus=os.cpu_count())
        env[names.ENV_ENABLED] = "1"
        env[names.ENV_DIR] = str(directory)
        env[names.ENV_LAYERS] = ",".join(map(str, spec.layers))
        env[names.ENV_EXPORT_EVERY] = str(spec.every)
        env[names.ENV_HEARTBEAT_MS] = str(_HEARTBEAT_MS)
        env["VLLM_DISABLE_REQUEST_ID_RANDOMIZATION"] = "1"  # the ring names requests by their ids
        env["VLLM_NO_USAGE_STATS"] = "1"
        if names.ENV_VLLM_PLUGINS in env:  # an allow-list is extended, not replaced
            env[names.ENV_VLLM_PLUGINS] = names.with_plugin(env[names.ENV_VLLM_PLUGINS])
        return env

    def _accepted(self, listener: socket.socket) -> socket.socket:
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self._child.exit_code() is not None:
                    raise self._ended() from None
                continue
            connection.settimeout(None)
            return connection

    def _receive(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._connection.makefile("rb") as lines:
            for line in lines:
                self._messages.put(json.loads(line))
        self._messages.put(None)

    def _disconnect(self) -> None:
        with contextlib.suppress(OSError):  # the child may have gone first
            self._connection.shutdown(socket.SHUT_RDWR)

    def _wait_for_end(self) -> None:
        """Give the child, whose connection has ended, the time to end vLLM properly."""
        deadline_s = time.monotonic() + _END_S
        while self._child.exit_code() is None and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)


def _ring(spec: EngineSpec) -> RingSpec:
    slot_bytes = RingSpec(spec.hidden_size).slot_bytes
    slots = min(max(_RING_BYTES // slot_bytes, 4), 256)
    return RingSpec(spec.hidden_size, slots=slots, lossless=True)
