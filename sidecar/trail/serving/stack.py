"""A vLLM server and the sidecar beside it: started, watched and stopped together."""

import contextlib
import http.client
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trail.serving.control import Control, ControlError
from trail.serving.launch import (
    Child,
    TrailSetup,
    shared_directory,
    sidecar_command,
    vllm_command,
    with_trail,
)
from trail.serving.setup import ModelSource, merge_args, serving_environment
from trail.wire.backoff import Backoff

log = logging.getLogger("trail.serve")

RESTARTS = Backoff(first_s=0.1, longest_s=8.0, healthy_s=30.0)
"""Pauses before a sidecar that keeps ending is started again."""
_LOOPBACK = "127.0.0.1"
_POLL_S = 0.25
_VLLM_GRACE_S = 30.0
_SIDECAR_GRACE_S = 10.0
_ANSWER_LIMIT_S = 5.0
_TRAIL_LIMIT_S = 30.0
"""From vLLM's first answer until its engine has reported to the sidecar."""


class ServerError(Exception):
    """A server did not start, or stopped answering; the message ends with the end of its log."""


class Stack:
    """A server of `model` with vLLM's arguments `args`, and a sidecar where `trail` is given.

    Without a model there is no server; an engine that is started with `env` is then the sidecar's. `environ`
    (this process's unless given) is what `env` is made of. With a `log` of `D/NAME`, output goes to
    `D/NAME-vllm.log` and `D/NAME-sidecar.log`, else where this process's goes. With a `port`, the server
    listens on loopback alone, at `base_url`. A context manager.
    """

    def __init__(
        self,
        model: ModelSource | None,
        args: Sequence[str] = (),
        trail: TrailSetup | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        log: Path | None = None,
        port: int | None = None,
    ) -> None:
        self._model, self._trail, self._log = model, trail, log
        self._args = [*args, *(() if port is None else ("--host", _LOOPBACK, "--port", str(port)))]
        self._port = port
        self.base_url = f"http://{_LOOPBACK}:{port}"
        self.env = serving_environment(
            os.environ if environ is None else environ,
            local_model=model is None or model.local,
            cpus=os.cpu_count(),
        )
        self.vllm: Child | None = None
        self.sidecar: Child | None = None
        """None also while an ended one waits for its restart."""
        self._directory: Path | None = None
        self._control: Control | None = None
        self._sidecar_command: list[str] = []
        self._restart_s = 0.0
        self._sidecar_due_s = self._sidecar_began_s = 0.0
        self._ends = contextlib.ExitStack()

    @property
    def name(self) -> str:
        """What messages call the server."""
        return "vLLM" if self._log is None else self._log.name

    @property
    def directory(self) -> Path:
        """What engine and sidecar share. Raises ServerError where no sidecar was started."""
        if self._directory is None:
            raise ServerError(f"server {self.name} has no sidecar")
        return self._directory

    @property
    def control(self) -> Control:
        """The sidecar's control service. Raises ServerError where no sidecar was started."""
        if self._control is None:
            raise ServerError(f"server {self.name} has no sidecar")
        return self._control

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the sidecar, then vLLM; neither is ready yet. Where one cannot start, neither is left."""
        with contextlib.ExitStack() as ends:
            if self._trail is not None:
                self._directory = ends.enter_context(shared_directory())
                layer = self._trail.layer
                self.env = with_trail(self.env, self._directory, () if layer is None else (layer,))
                self._control = Control(self._directory)
                ends.callback(self._control.close)
                ends.callback(self._stop_sidecar)
                self._sidecar_command = sidecar_command(self._trail, self._directory)
                self._start_sidecar()
            if self._model is not None:
                words = merge_args(self._model.default_args, self._args)
                command = vllm_command(self._model.vllm_model, words)
                self.vllm = Child("vLLM", command, self.env, self._log_of("vllm"))
                ends.callback(self.vllm.stop, _VLLM_GRACE_S)
            self._ends = ends.pop_all()

    def stop(self) -> None:
        """Stop vLLM, then the sidecar: the last requests have their board, and statistics are complete."""
        self._ends.close()

    def tend(self) -> int | None:
        """vLLM's exit code where it has ended, else None. An ended sidecar starts again after a while.

        To be called a few times a second by whoever wants that; vLLM serves on meanwhile.
        """
        if self.vllm is not None and (code := self.vllm.exit_code()) is not None:
            return code
        now_s = time.monotonic()
        if self.sidecar is not None:
            if (code := self.sidecar.exit_code()) is not None:
                wait_s = self._restart_s = RESTARTS.after(self._restart_s, now_s - self._sidecar_began_s)
                log.warning(
                    "the sidecar ended with exit code %d; vLLM serves first come, first served until"
                    " it is back; starting it again in %.1f s",
                    code,
                    wait_s,
                )
                self.sidecar, self._sidecar_due_s = None, now_s + wait_s
        elif self._sidecar_command and now_s >= self._sidecar_due_s:
            self._start_sidecar()
        return None

    def until_ready(self, limit_s: float, advice: str = "") -> None:
        """Return once the server answers and TRAIL works: the predictor is loaded, the engine has reported.

        Raises ServerError; `advice` says what to do where `limit_s` is too short.
        """
        if self._model is not None:
            late = f"server {self.name} is not ready after {limit_s:g} s{advice}"
            self._until(lambda: "" if self._answers() else late, limit_s)
            limit_s = _TRAIL_LIMIT_S
        if self._trail is not None:
            self._until(self._missing, limit_s)

    def why(self) -> str:
        """The end of every log, for an error message."""
        return "\n".join(f"{c.log}:\n{c.log_tail()}" for c in (self.vllm, self.sidecar) if c is not None)

    def _until(self, complaint: Callable[[], str], limit_s: float) -> None:
        """Return once there is nothing to complain of. ServerError when that lasts, or a child ends."""
        deadline_s = time.monotonic() + limit_s
        while True:
            for child in (self.vllm, self.sidecar):
                if child is not None and (code := child.exit_code()) is not None:
                    raise ServerError(
                        f"{child.name} of server {self.name} ended with exit code {code}\n{self.why()}"
                    )
            said = complaint()
            if not said:
                return
            if time.monotonic() > deadline_s:
                raise ServerError(f"{said}\n{self.why()}")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(_LOOPBACK, self._port, timeout=_ANSWER_LIMIT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _missing(self) -> str:
        """What TRAIL lacks to work, empty where it works. Raises ServerError where it never will."""
        said = "no engine has said hello, or the prompt predictor is still loading"
        try:
            if self._model is None:
                done = self.control.serving()
            else:
                state = self.control.state()
                if state.problem:
                    raise ServerError(f"TRAIL makes no predictions on server {self.name}: {state.problem}")
                done = state.ready
        except ControlError as e:
            done, said = False, str(e)
        return "" if done else f"TRAIL did not come up on server {self.name}: {said}"

    def _start_sidecar(self) -> None:
        self._sidecar_began_s = time.monotonic()
        self.sidecar = Child("sidecar", self._sidecar_command, self.env, self._log_of("sidecar"))

    def _stop_sidecar(self) -> None:
        if self.sidecar is not None:
            self.sidecar.stop(_SIDECAR_GRACE_S)

    def _log_of(self, part: str) -> Path | None:
        return None if self._log is None else self._log.with_name(f"{self._log.name}-{part}.log")
