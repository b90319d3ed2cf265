"""A connection by the current kubeconfig, and what goes wrong with it in sentences."""

import argparse
import asyncio
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from trail_operator import names
from trail_operator.cluster_api.kube import Kube, KubeError, path

EXIT_FAILED, EXIT_LATE, EXIT_INTERRUPTED = 1, 3, 130
APPS = "apps/v1"
PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets"}
_KINDS = {
    "deploy": "Deployment",
    "deployment": "Deployment",
    "deployments": "Deployment",
    "sts": "StatefulSet",
    "statefulset": "StatefulSet",
    "statefulsets": "StatefulSet",
}

Object = dict[str, Any]

NO_ANSWER = (OSError, TimeoutError, ssl.SSLError)
"""What a connection ends with."""


class ClusterError(Exception):
    """What the user asked for cannot be done; the message says why and what to do."""

    exit_code = EXIT_FAILED


class LateError(ClusterError):
    """What was waited for has not come about in time."""

    exit_code = EXIT_LATE


class InterruptedWaitError(ClusterError):
    """Somebody has waited long enough."""

    exit_code = EXIT_INTERRUPTED


@dataclass(frozen=True)
class Session:
    """A cluster and the namespace to work in."""

    kube: Kube
    namespace: str


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet as it is written on the command line."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"

    def path(self, namespace: str) -> str:
        """Its path in the API."""
        return path(APPS, PLURALS[self.kind], namespace, self.name)


def add_arguments(parser: argparse.ArgumentParser, *, everywhere: bool = False) -> None:
    """Options of all commands: which cluster and which namespace."""
    parser.add_argument("-n", "--namespace", default="", metavar="NAME", help="namespace (the context's)")
    parser.add_argument(
        "--context", default="", metavar="NAME", help="context of the kubeconfig (the current)"
    )
    if everywhere:
        parser.add_argument("-A", "--all-namespaces", action="store_true", help="look at all namespaces")


def parse_workload(text: str) -> Workload:
    """`deploy/NAME` or `statefulset/NAME`. Raises ArgumentTypeError, as argparse wants it."""
    kind, slash, name = text.partition("/")
    if not slash or not name or kind.lower() not in _KINDS:
        raise argparse.ArgumentTypeError(f"{text!r}: write deploy/NAME or statefulset/NAME")
    return Workload(_KINDS[kind.lower()], name)


def run(name: str, args: argparse.Namespace, work: Callable[[Session], Awaitable[int]]) -> int:
    """Does `work` on the cluster; its exit code.

    Otherwise one sentence on standard error, and 1, 3 for what is late, 130 on Ctrl-C.
    """
    code = EXIT_FAILED
    try:
        code = asyncio.run(_run(args, work))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\ntrail {name}: interrupted; what was done by then stays", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. Nothing is to be flushed into the closed pipe at the end, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ClusterError as error:
        message, code = str(error), error.exit_code
    except KubeError as error:
        message = _refused(error)
    except NO_ANSWER as error:
        message = f"the cluster does not answer: {said(error)}; is it up, and the context right?"
    else:
        return code
    print(f"trail {name}: {message}", file=sys.stderr)
    return code


async def _run(args: argparse.Namespace, work: Callable[[Session], Awaitable[int]]) -> int:
    from kubernetes_asyncio import client, config

    settings = client.Configuration()
    try:
        await config.load_kube_config(context=args.context or None, client_configuration=settings)
        contexts, active = config.list_kube_config_contexts()
    except Exception as error:  # whatever a file of the user's may hold
        raise ClusterError(f"no cluster: {said(error)}; set KUBECONFIG or give --context") from error
    context = next((c for c in contexts if c["name"] == args.context), active)
    namespace = args.namespace or context.get("context", {}).get("namespace") or "default"
    settings.retries = 1
    kube = Kube(client.ApiClient(settings))
    try:
        return await work(Session(kube, namespace))
    finally:
        await kube.close()


def said(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _refused(error: KubeError) -> str:
    if error.status == 401:
        return f"the cluster does not know you ({error}); log in again"
    if error.status == 403:
        return f"you may not do that: {error}; ask for the rights or for another namespace"
    return str(error)


async def fetch(session: Session, where: str, what: str) -> Object:
    """One object. Raises ClusterError where it is not there."""
    try:
        return await session.kube.get(where)
    except KubeError as error:
        if error.status == 404:
            raise ClusterError(f"there is no {what} in namespace {session.namespace}") from error
        raise


async def policies(session: Session, namespace: str | None) -> list[Object]:
    """TrailPolicies of a namespace, of all for None. Raises ClusterError where there is no such resource."""
    try:
        return await session.kube.all(path(names.API_VERSION, names.PLURAL, namespace))
    except KubeError as error:
        if error.status == 404:
            raise ClusterError(
                "this cluster has no TrailPolicy; install the charts trail-crds and trail first"
            ) from error
        raise


async def allowed(work: Awaitable[Any], otherwise: Any) -> Any:
    """What `work` gives, or `otherwise` where it is refused or absent: for what is good to know only."""
    try:
        return await work
    except KubeError as error:
        if error.status in (403, 404):
            return otherwise
        raise
