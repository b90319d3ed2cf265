"""Process 1 of the sidecar's container: `trail-supervisor [--fetch ...] -- trail sidecar`.

It never ends before it is told to. A container that ends takes a pod's readiness with it, and vLLM's traffic
with that; the sidecar behind this process may end, hang at its start or never find its predictor, and the pod
stays ready. Standard library only: it must come up where nothing else does.
"""

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trail.sidecar.process.cores import idle_seconds
from trail.sidecar.process.fetch import FetchError, fetch_archive
from trail.sidecar.process.startup_share import CONTENDED_BELOW, Start, StartupShare
from trail.sidecar.process.stop_signals import StopSignals
from trail.wire.backoff import Backoff
from trail.wire.names import BOARDS, ENV_DIR, ENV_READY_FD

RESTARTS = Backoff(first_s=1.0, longest_s=60.0, healthy_s=120.0)
"""Pauses between starts, and between tries to fetch a predictor."""
GRACE_S = 5.0
_POLL_S = 0.2

log = logging.getLogger("trail.supervisor")


def main(argv: Sequence[str] | None = None) -> int:
    """Keeps the command running until SIGTERM or SIGINT, which it hands on. 0 then, 2 for bad options."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s trail supervisor: %(message)s",
    )
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if bool(args.fetch) != bool(args.sha256) or bool(args.fetch) != bool(args.into):
        _parser().error("--fetch, --sha256 and --into belong together")
    if not command:
        _parser().error("no command is given; write it after --")
    stop = StopSignals()
    if args.fetch and not _fetch(args.fetch, args.sha256, args.into, stop):
        return 0
    keep_running(command, stop)
    return 0


def keep_running(command: Sequence[str], stop: StopSignals) -> None:
    """Starts `command` again whenever it ends, until `stop`; then ends it and waits for it.

    Beside a vLLM that may serve already, which is any start but a pod's first, it starts in turns with it.
    """
    pause_s = 0.0
    contended = _been_here()
    beside_vllm = contended
    while not stop.is_set():
        began_s = time.monotonic()
        said = _live(command, stop, beside_vllm=beside_vllm, contended=contended)
        if stop.is_set():
            break
        pause_s = RESTARTS.after(pause_s, time.monotonic() - began_s)
        log.warning("%s; again in %.0f s", said, pause_s)
        idle_s, rested_s = idle_seconds(), time.monotonic()
        _rest(pause_s, stop)
        beside_vllm, contended = True, _contended(idle_s, rested_s)


def _live(command: Sequence[str], stop: StopSignals, *, beside_vllm: bool, contended: bool) -> str:
    """One life of the sidecar, from its start to its end; how it ended. Never raises."""
    try:
        child, ready_fd = _start(command)
        try:
            share = StartupShare(child.pid, ready_fd, time.monotonic, contended) if beside_vllm else None
            return f"the sidecar ended with exit code {_wait(child, stop, share)}"
        finally:
            os.close(ready_fd)
            if child.poll() is None:  # we failed, not the child: its next life must find the place empty
                child.kill()
                child.wait()
    except Exception as error:  # noqa: BLE001 - whatever it is, the container stays
        return f"{command[0]} cannot be started or watched: {error}"


def _contended(idle_s: float | None, since_s: float) -> bool:
    """Whether no core has been free since, as far as can be seen."""
    now_idle_s, passed_s = idle_seconds(), max(time.monotonic() - since_s, 1e-3)
    if idle_s is None or now_idle_s is None:
        return False
    return (now_idle_s - idle_s) / passed_s < CONTENDED_BELOW


def _been_here() -> bool:
    """Whether an earlier life of this container has left its files to an engine."""
    directory = os.environ.get(ENV_DIR, "")
    return bool(directory) and any(Path(directory).glob(BOARDS))


def _fetch(url: str, sha256: str, into: Path, stop: StopSignals) -> bool:
    """Fetches the predictor, as often as it takes; false where the stop came first."""
    pause_s = 0.0
    while not stop.is_set():
        try:
            fetch_archive(url, sha256, into)
        except FetchError as error:
            pause_s = RESTARTS.after(pause_s)
            log.warning("%s; vLLM serves first come, first served; again in %.0f s", error, pause_s)
            _rest(pause_s, stop)
        else:
            return True
    return False


def _start(command: Sequence[str]) -> "tuple[subprocess.Popen[bytes], int]":
    """The child, and a descriptor that becomes readable when it is up or gone. Raises OSError."""
    ready_fd, its_end = os.pipe()
    try:
        environment = {**os.environ, ENV_READY_FD: str(its_end)}
        return subprocess.Popen(list(command), pass_fds=[its_end], env=environment), ready_fd
    except BaseException:
        os.close(ready_fd)
        raise
    finally:
        os.close(its_end)


def _wait(child: "subprocess.Popen[bytes]", stop: StopSignals, share: StartupShare | None) -> int:
    while (code := child.poll()) is None:
        _reap_strays(child.pid)
        if share is not None and (state := share.look()) is not Start.GOES_ON:
            level = logging.WARNING if state is Start.LATE else logging.INFO
            log.log(level, "the sidecar %s %s", state.value, share.describe())
            share = None
        if share.turn(stop.wait) if share is not None else stop.wait(_POLL_S):
            child.terminate()
            try:
                return child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                return child.wait()
    return code


def _rest(pause_s: float, stop: StopSignals) -> None:
    end_s = time.monotonic() + pause_s
    while not stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
        stop.wait(left_s)


def _reap_strays(child: int) -> None:
    """As process 1 it inherits what the sidecar leaves behind."""
    if os.getpid() != 1:
        return
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == child:
            return
        os.waitpid(found.si_pid, 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trail-supervisor", description="Keeps the sidecar running; never ends before it is told to."
    )
    parser.add_argument(
        "--fetch", default="", metavar="URL", help="tar archive of a predictor, fetched first"
    )
    parser.add_argument("--sha256", default="", metavar="DIGEST", help="of the archive")
    parser.add_argument(
        "--into", type=Path, default=None, metavar="DIR", help="where its contents appear, whole"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command to keep running")
    return parser


if __name__ == "__main__":
    sys.exit(main())
