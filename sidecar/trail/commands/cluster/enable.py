"""`trail enable deploy/NAME`."""

import argparse

from trail.commands.cluster.session import add_arguments, parse_workload
from trail.commands.cluster.session import run as run_session
from trail.commands.cluster.switch import enable
from trail.commands.cluster.wait import add_wait_arguments
from trail_operator.policy.resolve import is_policy


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail enable`."""
    parser.description = (
        "Annotate a Deployment or StatefulSet, and wait until the operator has stamped it, its pods have"
        " rolled, and each runs with TRAIL. Exit code 0 where that has come about; 1 where it will not, with"
        " the reason; 3 where it takes longer than --timeout. Ending the wait ends nothing else: the"
        " annotation stays."
    )
    parser.add_argument("workload", type=parse_workload, metavar="deploy/NAME", help="or statefulset/NAME")
    parser.add_argument("--policy", type=_policy, default=None, metavar="POLICY",
        help="a TrailPolicy of its namespace, or NAMESPACE/POLICY (whatever applies there)")  # fmt: skip
    add_wait_arguments(parser)
    add_arguments(parser)


def _policy(text: str) -> str:
    if not is_policy(text):
        raise argparse.ArgumentTypeError(f"{text!r}: write POLICY or NAMESPACE/POLICY")
    return text


def run(args: argparse.Namespace) -> int:
    """0, 1 with the reason, 3 for what is late."""
    timeout_s = args.timeout if args.wait else None
    annotation = args.policy or "enabled"
    return run_session("enable", args, lambda session: enable(session, args.workload, annotation, timeout_s))
