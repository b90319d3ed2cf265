"""`trail enable deploy/NAME`."""

import argparse

from trail.lab.cluster.session import add_arguments, parse_workload
from trail.lab.cluster.session import run as run_session
from trail.lab.cluster.switch import enable


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail enable`."""
    parser.description = (
        "Annotate a Deployment or StatefulSet so that its pods roll and run with TRAIL. Exit code 1 where"
        " nothing would be injected; the reason is printed."
    )
    parser.add_argument("workload", type=parse_workload, metavar="deploy/NAME", help="or statefulset/NAME")
    parser.add_argument("--policy", default="enabled", metavar="POLICY",
        help="a TrailPolicy of its namespace, or NAMESPACE/POLICY (whatever applies there)")  # fmt: skip
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 1 with the reason."""
    return run_session("enable", args, lambda session: enable(session, args.workload, args.policy))
