"""`trail enable deploy/NAME`."""

import argparse

from trail.lab.cluster.session import add_arguments, parse_workload
from trail.lab.cluster.session import run as run_session
from trail.lab.cluster.switch import enable
from trail_operator.resolve import is_policy


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail enable`."""
    parser.description = (
        "Annotate a Deployment or StatefulSet so that its pods roll and run with TRAIL. Exit code 1 where"
        " nothing would be injected; the reason is printed."
    )
    parser.add_argument("workload", type=parse_workload, metavar="deploy/NAME", help="or statefulset/NAME")
    parser.add_argument("--policy", type=_policy, default=None, metavar="POLICY",
        help="a TrailPolicy of its namespace, or NAMESPACE/POLICY (whatever applies there)")  # fmt: skip
    add_arguments(parser)


def _policy(text: str) -> str:
    if not is_policy(text):
        raise argparse.ArgumentTypeError(f"{text!r}: write POLICY or NAMESPACE/POLICY")
    return text


def run(args: argparse.Namespace) -> int:
    """0, or 1 with the reason."""
    wish = args.policy or "enabled"
    return run_session("enable", args, lambda session: enable(session, args.workload, wish))
