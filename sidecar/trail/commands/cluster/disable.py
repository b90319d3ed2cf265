"""`trail disable deploy/NAME`."""

import argparse

from trail.commands.cluster.session import add_arguments, parse_workload
from trail.commands.cluster.session import run as run_session
from trail.commands.cluster.switch import disable
from trail.commands.cluster.wait import add_wait_arguments


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail disable`."""
    parser.description = (
        "Have the pods of a Deployment or StatefulSet roll and run without TRAIL, and wait until they do."
        " Exit code 0 where that has come about; 1 where it will not, with the reason; 3 where it takes"
        " longer than --timeout."
    )
    parser.add_argument("workload", type=parse_workload, metavar="deploy/NAME", help="or statefulset/NAME")
    add_wait_arguments(parser)
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, 1 with the reason, 3 for what is late."""
    timeout_s = args.timeout if args.wait else None
    return run_session("disable", args, lambda session: disable(session, args.workload, timeout_s))
