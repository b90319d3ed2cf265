"""What the operator adds to every injection, whatever the policy says."""

from dataclasses import dataclass, field

NOBODY = 65532
"""User of our containers, as in distroless images."""
GROUP = 65532
"""Group that the sidecar's files belong to and that vLLM's container is made a member of."""


@dataclass(frozen=True)
class InjectionSettings:
    """Images and identities. `user` None lets the cluster choose, as OpenShift does by namespace."""

    sidecar_image: str
    engine_image: str
    user: int | None = NOBODY
    group: int = GROUP
    pull_policy: str = "IfNotPresent"
    redis_url: str = ""
    """Where sidecars find Redis; empty: they keep the policy's c."""
    redis_secret: str = ""
    """Secret of the pod's namespace with the key `url`, which wins over `redis_url`; absent is no error."""
    redis_key: str = field(default="", repr=False)
    """What passwords of sidecars follow from in the embedded Redis (`trail_operator.access`); empty: it has
    none, or `redis_secret` holds it."""
