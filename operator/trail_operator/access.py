"""Who may do what in the embedded Redis. Pure: one random key in, users, passwords and rights out.

Every workload's sidecars have a user of their own, whose password follows from the key and the workload's
name: the webhook writes it into the pod, the acting replica has Redis know it, and neither has to ask the
other. What stands in a pod opens that workload's reports and shows its c. To write c, and other workloads,
stay closed.
"""

import hashlib
import hmac
from urllib.parse import urlsplit, urlunsplit

from trail.wire.redis_schema import SCHEMA_VERSION, Keys

OPERATOR_USER = "operator"
_BY_WORKLOAD = "sidecar-"
_KEY_BYTES = 32

SIDECAR_COMMANDS = (
    "-@all", "+@connection", "-@dangerous", "+eval", "+evalsha", "+script|load", "+time", "+hset", "+hgetall",
    "+del", "+pexpire", "+zadd", "+zremrangebyscore", "+xadd", "+subscribe", "+unsubscribe",
)  # fmt: skip
"""What a sidecar does, its script's commands included."""
_OPERATOR_COMMANDS = (
    "-@all", "+@connection", "-@dangerous", "+eval", "+evalsha", "+script|load", "+time", "+hset", "+hget",
    "+hgetall", "+del", "+get", "+set", "+zrevrange", "+publish", "+info", "+acl|setuser", "+acl|deluser",
)  # fmt: skip


def valid_key(key: str) -> bool:
    """Whether `key` is 32 random bytes in hexadecimal digits, as far as one can tell."""
    return len(key) == 2 * _KEY_BYTES and all(digit in "0123456789abcdef" for digit in key)


def password(key: str, user: str) -> str:
    """The password of a user, 64 hexadecimal digits."""
    return hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest()


def sidecar_user(workload: str) -> str:
    """The user of all sidecars of a workload, `namespace/kind/name`."""
    return _BY_WORKLOAD + hashlib.sha256(workload.encode()).hexdigest()[:32]


def with_user(url: str, key: str, user: str) -> str:
    """The URL of Redis for a user."""
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit(parts._replace(netloc=f"{user}:{password(key, user)}@{host}"))


def users_file(key: str) -> str:
    """Redis's ACL file: the operator, and nobody else. It holds digests of passwords."""
    keys = f"~trail:{SCHEMA_VERSION}:* resetchannels &trail:{SCHEMA_VERSION}:*"
    rights = " ".join(_OPERATOR_COMMANDS)
    return (
        f"user default off resetpass resetkeys resetchannels -@all\n"
        f"user {OPERATOR_USER} on #{_digest(key, OPERATOR_USER)} {keys} {rights}\n"
    )


def sidecar_rules(key: str, workload: str, *, read_only_keys: bool) -> list[str]:
    """What follows `ACL SETUSER NAME` for a workload's sidecars. Raises ValueError as `Keys` does.

    Redis before 7.0 has no keys that may only be read: without `read_only_keys` c can be written, too.
    """
    keys = Keys(workload)
    readable = "%R~" if read_only_keys else "~"
    return [
        "reset", "on", f"#{_digest(key, sidecar_user(workload))}",
        f"~{keys.pod('*')}", f"~{keys.pods}", f"~{keys.history}", f"{readable}{keys.c}",
        "resetchannels", f"&{keys.hint}", *SIDECAR_COMMANDS,
    ]  # fmt: skip


def _digest(key: str, user: str) -> str:
    return hashlib.sha256(password(key, user).encode()).hexdigest()
