"""Fills the Secret of the embedded Redis: `python -m trail_operator.jobs.redis_secret`.

Runs to its end before the operator starts. The Secret comes empty with the release, so that no template makes
keys; what is in it stays through upgrades. Redis's own pod waits for it, and holds digests of passwords only.
"""

import argparse
import asyncio
import base64
import binascii
import logging
import secrets
import sys
from collections.abc import Mapping, Sequence

from trail_operator.access import OPERATOR_USER, users_file, valid_key, with_user
from trail_operator.cluster_api.kube import Kube, KubeError, path

KEY, USERS, URL = "key", "users.acl", "url"
"""What the Secret holds: the key that passwords follow from, Redis's ACL file, and the operator's URL."""

log = logging.getLogger("trail.operator.redis")


def filled(data: Mapping[str, str], url: str) -> dict[str, str]:
    """The Secret's data as it should be, in base64: the key that it has, else a random one, and the rest."""
    try:
        key = base64.b64decode(data.get(KEY, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        key = ""
    if not valid_key(key):
        key = secrets.token_hex(32)
    texts = {KEY: key, USERS: users_file(key), URL: with_user(url, key, OPERATOR_USER)}
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}


async def fill(kube: Kube, namespace: str, secret: str, url: str) -> bool:
    """Fills the Secret where something is missing; whether it had to. Raises as `Kube` does."""
    where = path("v1", "secrets", namespace, secret)
    while True:
        present = await kube.get(where)
        data = present.get("data") or {}
        wanted = filled(data, url)
        if data == wanted:
            return False
        try:
            # With the version that was read: of two replicas one is first, and the other takes its word.
            await kube.replace(where, {**present, "data": wanted})
        except KubeError as error:
            if error.status != 409:
                raise
        else:
            log.info("the Secret %s/%s was filled", namespace, secret)
            return True


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 with one sentence on standard error."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    args = parser().parse_args(argv)
    try:
        asyncio.run(_run(args))
    except (ConnectionError, KubeError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says what to do
        return 1
    return 0


async def _run(args: argparse.Namespace) -> None:
    async with await Kube.connect() as kube:
        await fill(kube, args.namespace, args.secret, args.url)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="trail-operator-redis-secret", description="Makes the passwords of the embedded Redis, once."
    )
    out.add_argument("--namespace", required=True, help="namespace of the operator")
    out.add_argument("--secret", required=True, metavar="NAME", help="Secret to fill; it must exist")
    out.add_argument("--url", required=True, help="Redis as the operator reaches it, without a password")
    return out


if __name__ == "__main__":
    sys.exit(main())
