"""Before the chart is removed: `python -m trail_operator.jobs.uninstall`.

An operator that still runs would put every stamp back. So it is stopped first; then the webhook's
configuration goes, then the stamps. Users' own annotations stay: they are theirs, and say nothing to anybody.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence

from trail_operator.cluster_api.kube import Kube, KubeError, path
from trail_operator.command import remove_stamps
from trail_operator.reconcile.controller import APPS

_POLL_S = 1.0
_WAIT_S = 60.0

log = logging.getLogger("trail.operator.uninstall")


async def uninstall(
    kube: Kube, namespace: str, deployment: str, webhook_configuration: str, *, wait_s: float = _WAIT_S
) -> int:
    """Stops the operator and removes what it has left in the cluster; the number of workloads changed.

    Raises KubeError for a refusal, and TimeoutError where the operator's pods do not end within `wait_s`.
    """
    where = path(APPS, "deployments", namespace, deployment)
    try:
        found = await kube.patch(where, {"spec": {"replicas": 0}})
    except KubeError as error:
        if error.status != 404:
            raise
    else:
        wanted = found["spec"]["selector"]["matchLabels"]
        label = ",".join(f"{key}={value}" for key, value in sorted(wanted.items()))
        end_s = time.monotonic() + wait_s
        while pods := await kube.all(path("v1", "pods", namespace), label):
            if time.monotonic() > end_s:
                left = ", ".join(sorted(str(pod["metadata"]["name"]) for pod in pods))
                raise TimeoutError(
                    f"pods of {namespace}/{deployment} still run after {wait_s:g} s ({left}): delete them"
                    " (with --force where their node is gone), then try again"
                )
            await asyncio.sleep(_POLL_S)
    return await remove_stamps(kube, webhook_configuration)


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 with one sentence on standard error."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    args = make_parser().parse_args(argv)
    try:
        asyncio.run(_run(args))
    except (ConnectionError, KubeError, OSError, TimeoutError) as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - the message says what to do
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="trail-operator-uninstall",
        description="Stops the operator and takes its stamps out of all workloads; pods roll without TRAIL.",
    )
    parser.add_argument("--namespace", required=True, help="namespace of the operator")
    parser.add_argument("--deployment", required=True, metavar="NAME", help="its Deployment")
    parser.add_argument(
        "--webhook-configuration", required=True, metavar="NAME", help="what has pods injected"
    )
    parser.add_argument("--wait", type=float, default=_WAIT_S, metavar="SECONDS",
        help="for the operator's pods to end (%(default)g)")  # fmt: skip
    return parser


async def _run(args: argparse.Namespace) -> None:
    async with await Kube.connect() as kube:
        await uninstall(kube, args.namespace, args.deployment, args.webhook_configuration, wait_s=args.wait)


if __name__ == "__main__":
    sys.exit(main())
