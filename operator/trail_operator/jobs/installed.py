"""`helm test`: does the operator answer where the cluster looks for it?"""

import argparse
import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TIMEOUT_S = 10.0
_UID = "helm-test"


class NotInstalledError(Exception):
    """The operator does not do what it should; the message says what and where."""


def check_metrics(url: str) -> None:
    """Raises NotInstalledError unless `url` shows the operator's metrics."""
    text = _fetch(urllib.request.Request(url), None).decode(errors="replace")  # noqa: S310 - the user's own URL
    if "trail_operator_leader" not in text:
        raise NotInstalledError(f"{url} shows no metric trail_operator_leader; something else answers there")
    if "\ntrail_operator_watches_up 1.0" not in text:
        raise NotInstalledError(
            "the operator hears of no changes in the cluster, so that no workload would be switched on;"
            " its log says why the watches ended"
        )


def check_webhook(url: str, authority: Path | None) -> None:
    """Raises NotInstalledError unless `url` admits a pod under a certificate of `authority` (None: any)."""
    context = ssl.create_default_context(cafile=authority)
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": _UID, "operation": "CREATE", "namespace": "default", "dryRun": True,
                    "object": {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}},
    }  # fmt: skip
    body = json.dumps(review).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - as above
    answer = _fetch(request, context)
    try:
        response: Any = json.loads(answer)["response"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotInstalledError(f"{url} answers with no admission review: {answer[:200]!r}") from error
    if response.get("uid") != _UID or response.get("allowed") is not True:
        raise NotInstalledError(f"{url} does not admit a pod: {response}")


def _fetch(request: urllib.request.Request, context: ssl.SSLContext | None) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:  # noqa: S310 - as above
            return bytes(answer.read())
    except (OSError, urllib.error.URLError) as error:
        raise NotInstalledError(f"{request.full_url}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="trail-operator-installed", description="Checks an installed operator from inside the cluster."
    )
    parser.add_argument("--metrics", default="", metavar="URL", help="where it shows its metrics")
    parser.add_argument("--webhook", default="", metavar="URL", help="where it answers admission reviews")
    parser.add_argument(
        "--authority", type=Path, default=None, metavar="FILE", help="who signs its certificate"
    )
    args = parser.parse_args(argv)
    try:
        if args.metrics:
            check_metrics(args.metrics)
        if args.webhook:
            check_webhook(args.webhook, args.authority)
    except NotInstalledError as error:
        print(f"trail: {error}", file=sys.stderr)
        return 1
    print("trail: the operator answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
