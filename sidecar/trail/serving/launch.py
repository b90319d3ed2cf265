"""Command lines, environment and processes of vLLM and the sidecar."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trail.wire import names

_SHM = Path("/dev/shm")  # noqa: S108 - shared memory is meant
_POLL_S = 0.05
_TERM_S = 1.0


@dataclass(frozen=True)
class TrailSetup:
    """What TRAIL needs beside a server: predictor with its layer, policy at start.

    Without a layer nothing is exported, and predictions come from prompts alone.
    """

    predictor: Path
    layer: int | None
    policy: str
    stats_file: Path | None = None
    metrics_port: int | None = None
    """None leaves the sidecar's default; negative switches its endpoint off."""


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A private directory on shared memory (in the temporary directory where there is none).

    It is removed at the end, with whatever killed processes left in it.
    """
    parent = _SHM if os.access(_SHM, os.W_OK | os.X_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="trail-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def vllm_command(model: str, args: Sequence[str]) -> list[str]:
    """The OpenAI server; `vllm serve` is not used because it fails with the CPU wheel."""
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *args]


def sidecar_command(trail: TrailSetup, directory: Path) -> list[str]:
    """The sidecar process of this installation, sharing `directory` with vLLM."""
    command = [sys.executable, "-m", "trail", "sidecar", "--dir", str(directory)]
    command += ["--predictor", str(trail.predictor), "--policy", trail.policy]
    if trail.stats_file is not None:
        command += ["--stats-file", str(trail.stats_file)]
    if trail.metrics_port is not None:
        command += ["--metrics-port", str(trail.metrics_port)]
    return command


def with_trail(env: Mapping[str, str], directory: Path, layers: Sequence[int]) -> dict[str, str]:
    """The environment of vLLM with TRAIL on; an allow-list of plugins is extended, not replaced."""
    out = dict(env)
    out[names.ENV_ENABLED] = "1"
    out[names.ENV_DIR] = str(directory)
    out.pop(names.ENV_LAYERS, None)
    if layers:
        out[names.ENV_LAYERS] = ",".join(map(str, layers))
    if names.ENV_VLLM_PLUGINS in out:
        out[names.ENV_VLLM_PLUGINS] = names.with_plugin(out[names.ENV_VLLM_PLUGINS])
    return out


def run_to_end(command: Sequence[str]) -> None:
    """Run a command of ours in the foreground. Raises RuntimeError where it fails.

    Interrupted, it is told to stop and waited for: `subprocess.run` would kill it before it has stopped its
    own servers.
    """
    with subprocess.Popen(list(command)) as child:
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            raise
    if code:
        raise RuntimeError(f"'{' '.join(command)}' ended with {code}")


class Child:
    """A child process with a process group of its own, so that nothing it started outlives it."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path | None = None
    ) -> None:
        """Start it; output goes to `log`, or where ours goes."""
        self.name = name
        self.log = log
        out = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            out = log.open("ab")
        try:
            self._process = subprocess.Popen(
                list(command),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
                # A group but no session of its own: Linux shares the CPU out by session first (autogroup),
                # and vLLM's processes, which yield while they wait, then starve those of other sessions.
                process_group=0,
            )
        finally:
            if out is not None:
                out.close()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self, grace_s: float) -> int:
        """SIGTERM, `grace_s` of patience, SIGKILL for what is left of its group. Returns the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._kill_group()
        code = self._process.wait()
        self._reap_group(2.0)
        return code

    def _reap_group(self, grace_s: float) -> None:
        """Give workers of an ended server a moment to follow it, then kill them."""
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(_POLL_S)
        self._kill_group()

    def _kill_group(self) -> None:
        """SIGTERM first: what listens to it removes its shared memory, which nobody else would."""
        try:
            os.killpg(self.pid, signal.SIGTERM)
            time.sleep(_TERM_S)
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the log, for an error message."""
        if self.log is None or not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
