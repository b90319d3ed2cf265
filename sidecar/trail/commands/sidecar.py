"""`trail sidecar`: the sidecar as a process."""

import argparse
import contextlib
import logging
import os

from trail.sidecar.config import add_arguments, from_arguments
from trail.sidecar.logs import get_logger, set_up_logging
from trail.sidecar.process.stop_signals import StopSignals
from trail.wire.names import ENV_READY_FD

EXIT_USAGE = 2
NICE = 10
"""On a machine without a core to spare vLLM goes first: a late prediction costs a little order, a late step
costs everybody."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `trail sidecar`."""
    add_arguments(parser, os.environ)


def run(args: argparse.Namespace) -> int:
    """Runs the sidecar until SIGTERM or SIGINT, which end the process with 0; 2 when it cannot start."""
    set_up_logging()
    os.nice(NICE)
    try:
        config = from_arguments(args)
    except ValueError as error:
        return _refuse(error)
    stop = StopSignals()
    # What the process stands on is imported here so that `trail --help` does without it.
    from trail.predict.manifest import ArtefactError
    from trail.sidecar.process.directory_lock import SidecarError
    from trail.sidecar.sidecar import Sidecar, write_stats
    from trail.wire.errors import WireError

    try:
        sidecar = Sidecar(config)
    except ArtefactError as error:
        return _refuse(error)
    try:
        sidecar.start()
        sidecar.wait(stop, on_loaded=tell_supervisor)
        get_logger().info("stopping")
    except (SidecarError, ArtefactError, WireError, ValueError) as error:
        return _refuse(error)
    finally:
        sidecar.close()
    write_stats(sidecar)
    # Everything is closed. The interpreter's own end would tear down an import that may still run in the
    # prompt predictor's thread, and has torch's bindings report leaks of their own.
    logging.shutdown()
    os._exit(0)


def tell_supervisor() -> None:
    """Says that everything is loaded, to a supervisor that had this process start in turns with vLLM."""
    descriptor = os.environ.pop(ENV_READY_FD, "")
    if descriptor.isdigit():
        with contextlib.suppress(OSError):
            os.write(int(descriptor), b".")
            os.close(int(descriptor))


def _refuse(error: Exception) -> int:
    """Says why the sidecar does not start: the message alone, it names what to do."""
    get_logger().error("%s", error)
    return EXIT_USAGE
