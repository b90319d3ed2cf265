"""`trail disable deploy/NAME`."""

import argparse

from trail.lab.cluster.session import add_arguments, parse_workload
from trail.lab.cluster.session import run as run_session
from trail.lab.cluster.switch import disable


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail disable`."""
    parser.description = "Have the pods of a Deployment or StatefulSet roll and run without TRAIL."
    parser.add_argument("workload", type=parse_workload, metavar="deploy/NAME", help="or statefulset/NAME")
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 1 with the reason."""
    return run_session("disable", args, lambda session: disable(session, args.workload))
