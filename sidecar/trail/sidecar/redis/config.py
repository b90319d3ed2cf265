"""Where Redis is, and what a pod is called there."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from trail.wire.redis_schema import Keys, check_pod


@dataclass(frozen=True)
class RedisConfig:
    """Where Redis is and what this pod is called there.

    `url` is `redis://` or, with TLS, `rediss://`, with an ACL user and password where there are any.
    `workload` is `namespace/kind/name`, `pod` the pod's name or UID. Raises ValueError.
    """

    url: str = field(repr=False)  # it may hold a password
    workload: str
    pod: str

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("the URL of Redis begins with none of redis://, rediss://, unix://")
        Keys(self.workload)
        check_pod(self.pod)

    @property
    def place(self) -> str:
        """Host and port, to be logged."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
