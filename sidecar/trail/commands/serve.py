"""`trail serve MODEL [vLLM arguments]`: the sidecar and vLLM's OpenAI server together on one machine."""

import argparse
import logging
import signal
import time
from pathlib import Path
from types import FrameType

from trail.policy.spec import parse_policy
from trail.serving.launch import TrailSetup
from trail.serving.setup import SetupError, require_vllm, resolve_model, resolve_predictor
from trail.serving.stack import Stack

log = logging.getLogger("trail.serve")

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
    trail = None
    try:
        require_vllm(trail=not args.no_trail)
        model = resolve_model(args.model)
        if not args.no_trail:
            parse_policy(args.policy)
            predictor = resolve_predictor(args.predictor, model)
            trail = TrailSetup(predictor.path, predictor.layer, args.policy)
    except (SetupError, ValueError) as e:
        log.error("trail serve: %s", e)  # noqa: TRY400 - bad input is told in one line, without a traceback
        return 2
    if trail is not None and not predictor.checked_against_model:
        log.warning(
            "%s is not in the local cache yet, so the predictor is not checked against its weights",
            model.name,
        )
    return supervise(Stack(model, args.vllm_args, trail))


def supervise(stack: Stack) -> int:
    """Serve until vLLM ends or SIGINT or SIGTERM comes; the sidecar is restarted when it ends.

    Returns vLLM's exit code, or 0 after a signal.
    """
    # No threading.Event: its `set` in the handler may wait for the lock that the interrupted `wait` holds.
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with stack:
            while not signals:
                time.sleep(_POLL_S)
                code = stack.tend()
                if code is not None:
                    log.error("vLLM ended with exit code %d", code)
                    return code if code >= 0 else 128 - code
            log.info("stopping vLLM, then the sidecar")
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
