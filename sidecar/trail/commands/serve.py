"""`trail serve MODEL [vLLM arguments]`: the sidecar and vLLM's OpenAI server together on one machine."""

import argparse
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from trail.policy.spec import parse_policy
from trail.serving.launch import (
    Child,
    TrailSetup,
    make_shared_directory,
    remove_shared_directory,
    sidecar_command,
    vllm_command,
    with_trail,
)
from trail.serving.setup import (
    SetupError,
    merge_args,
    require_vllm,
    resolve_model,
    resolve_predictor,
    serving_environment,
)
from trail.wire.backoff import Backoff

log = logging.getLogger("trail.serve")

VLLM_GRACE_S = 30.0
SIDECAR_GRACE_S = 5.0
RESTARTS = Backoff(first_s=0.1, longest_s=8.0, healthy_s=30.0)
"""Pauses before a sidecar that keeps ending is started again."""
_POLL_S = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail serve`; whatever is not among them goes to vLLM untouched."""
    parser.description = (
        "Serve MODEL with vLLM's OpenAI server under TRAIL. Options that are not listed here are vLLM's"
        " own and are passed on untouched, for example --port 8001 --max-num-seqs 16."
    )
    parser.usage = "trail serve MODEL [--predictor DIR] [--policy NAME] [--no-trail] [vLLM arguments]"
    parser.add_argument("model", metavar="MODEL", help="model directory, Hugging Face id, or 'demo'")
    parser.add_argument(
        "--predictor", type=Path, metavar="DIR", help="predictor trained for MODEL (demo: its own)"
    )
    parser.add_argument(
        "--policy", default="trail", help="fcfs, sjf, trail-prompt, trail-c0.2, ... (%(default)s)"
    )
    parser.add_argument("--no-trail", action="store_true", help="stock vLLM, first come, first served")


def run(args: argparse.Namespace) -> int:
    """Serve until vLLM ends or a signal comes. Returns vLLM's exit code, 0 on a signal, 2 on bad input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        require_vllm(trail=not args.no_trail)
        model = resolve_model(args.model)
        env = serving_environment(os.environ, local_model=model.local, cpus=os.cpu_count())
        vllm = vllm_command(model.vllm_model, merge_args(model.default_args, args.vllm_args))
        if args.no_trail:
            return supervise(Launch(vllm, env, None))
        parse_policy(args.policy)
        predictor = resolve_predictor(args.predictor, model)
    except (SetupError, ValueError) as e:
        log.error("trail serve: %s", e)  # noqa: TRY400 - bad input is told in one line, without a traceback
        return 2
    if not predictor.checked_against_model:
        log.warning(
            "%s is not in the local cache yet, so the predictor is not checked against its weights",
            model.name,
        )
    directory = make_shared_directory()
    trail = TrailSetup(directory, predictor.path, predictor.layer, args.policy)
    try:
        return supervise(Launch(vllm, with_trail(env, trail), sidecar_command(trail)))
    finally:
        remove_shared_directory(directory)


@dataclass(frozen=True)
class Launch:
    """The command lines and the environment of what is served."""

    vllm: list[str]
    env: dict[str, str]
    sidecar: list[str] | None


def supervise(
    launch: Launch,
    *,
    spawn: Callable[[str, list[str], dict[str, str]], Child] = Child,
) -> int:
    """Run vLLM and the sidecar until vLLM ends or SIGINT or SIGTERM comes.

    The sidecar is restarted when it ends; vLLM serves on meanwhile. vLLM stops first, so that its last
    requests still have their scheduler's board. Returns vLLM's exit code, or 0 after a signal.
    """
    # No threading.Event: its `set` in the handler may wait for the lock that the interrupted `wait` holds.
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    sidecar: Child | None = None
    vllm: Child | None = None
    wait_s = 0.0
    started_s = restart_at_s = time.monotonic()
    try:
        if launch.sidecar is not None:
            sidecar = spawn("sidecar", launch.sidecar, launch.env)
        vllm = spawn("vLLM", launch.vllm, launch.env)
        while not signals:
            time.sleep(_POLL_S)
            code = vllm.exit_code()
            if code is not None:
                log.error("vLLM ended with exit code %d", code)
                return code if code >= 0 else 128 - code
            if launch.sidecar is None:
                continue
            now_s = time.monotonic()
            if sidecar is None:
                if now_s >= restart_at_s:
                    sidecar, started_s = spawn("sidecar", launch.sidecar, launch.env), now_s
            elif (code := sidecar.exit_code()) is not None:
                wait_s = RESTARTS.after(wait_s, now_s - started_s)
                log.warning(
                    "the sidecar ended with exit code %d; vLLM serves first come, first served until"
                    " it is back; starting it again in %.1f s",
                    code,
                    wait_s,
                )
                sidecar, restart_at_s = None, now_s + wait_s
        log.info("stopping vLLM, then the sidecar")
        return 0
    finally:
        if vllm is not None:
            vllm.stop(VLLM_GRACE_S)
        if sidecar is not None:
            sidecar.stop(SIDECAR_GRACE_S)
        for number, handler in before.items():
            signal.signal(number, handler)
