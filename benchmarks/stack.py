"""What experiments serve: a model on a free port of loopback, with its predictor, logs in files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trail.serving.launch import TrailSetup, free_port
from trail.serving.setup import resolve_model, resolve_predictor
from trail.serving.stack import Stack


def stack_of(
    model: str,
    args: Sequence[str],
    policy: str,
    log: Path,
    *,
    predictor: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Stack:
    """A Stack as `trail serve` would have it, not started. Raises SetupError.

    No metrics endpoint: another server may run on this machine.
    """
    source = resolve_model(model)
    found = resolve_predictor(predictor, source)
    trail = TrailSetup(found.path, found.layer, policy, metrics_port=-1)
    return Stack(source, args, trail, environ=environ, log=log, port=free_port())
