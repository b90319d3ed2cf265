"""vLLM without a server, in a child process: requests go in and answers come back over a socket.

The child is `offline_run`. Messages are JSON lines. In: lists of requests. Out: `{"ready": {...}}` once, then
`{"finished": {...}}` for each request, or `{"failed": "why"}` and the end.
"""

import contextlib
import json
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from trail.serving.launch import Child

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
class Answers:
    """All answers to request `id`: the tokens of each, and why it ended (`stop`, `length`)."""

    id: int
    tokens: Sequence[Sequence[int]]
    reasons: Sequence[str]


class OfflineEngine:
    """vLLM in a child process. A context manager.

    `args` are vLLM's own command-line arguments, the model among them, `env` is its environment; `log` takes
    all that it writes. `directory` holds the socket. With `whole_prompts` every prompt is computed whole and
    by this engine; with `layers` it does not start unless TRAIL exports these.

    Nothing of it outlives this process: the child ends with the connection, killed or not, and removes
    `directory`.
    """

    def __init__(
        self,
        args: Sequence[str],
        env: Mapping[str, str],
        directory: Path,
        log: Path,
        *,
        whole_prompts: bool = False,
        layers: Sequence[int] = (),
    ) -> None:
        self._env, self._log = env, log
        self._socket = directory / "requests.sock"
        self._spec = {
            "socket": str(self._socket),
            "directory": str(directory),
            "args": list(args),
            "whole_prompts": whole_prompts,
            "layers": list(layers),
        }
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "OfflineEngine":
        """Start the process; it takes a while until it is ready. Raises EngineError."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(self._socket))
            listener.listen(1)
            listener.settimeout(_POLL_S)
            self._child = Child("vLLM", self._command(), self._env, self._log)
            stack.callback(self._child.stop, _END_S)
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

    @property
    def pid(self) -> int:
        """Process id of the child; vLLM's engine core and workers are below it."""
        return self._child.pid

    def exit_code(self) -> int | None:
        """The child's; None while it runs."""
        return self._child.exit_code()

    def wait_ready(self, meanwhile: Callable[[], object] = lambda: None) -> EngineFacts:
        """Return when the engine takes requests, however long it loads. Raises EngineError.

        `meanwhile` is called about once a second.
        """
        while True:
            message = self._message(1.0)
            meanwhile()
            if message is not None:
                return EngineFacts(**message["ready"])

    def submit(self, requests: Sequence[Mapping[str, Any]]) -> None:
        """Send requests. Raises EngineError.

        Each has `id`, `prompt` (token ids) and `sampling`: what vLLM's SamplingParams take.
        """
        try:
            self._connection.sendall(json.dumps(list(requests)).encode() + b"\n")
        except OSError as error:
            raise self._ended() from error

    def answers(self, timeout_s: float | None) -> Answers | None:
        """The next answers, None where none came in time. Raises EngineError when the engine has ended."""
        message = self._message(timeout_s)
        return None if message is None else Answers(**message["finished"])

    def run(self, requests: Sequence[Mapping[str, Any]], limit_s: float | None = None) -> Iterator[Answers]:
        """Send requests and give the answers as they come; `limit_s` is the longest wait for one.

        Raises EngineError.
        """
        self.submit(requests)
        for _ in requests:
            answers = self.answers(limit_s)
            if answers is None:
                raise EngineError(f"vLLM answered nothing for {limit_s:g} s; see {self._log}")
            yield answers

    def _message(self, timeout_s: float | None) -> dict[str, Any] | None:
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

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "trail.serving.offline_run", json.dumps(self._spec)]

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
