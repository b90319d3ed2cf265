"""Only one operator acts: the one that holds a Lease of coordination.k8s.io/v1.

As in Kubernetes' own leader election no two clocks are compared. A holder counts as gone when its Lease has
not changed for the Lease's duration as seen by the clock of who watches; and a holder stops by itself when it
could not renew for a shorter time, whether or not it can reach the API server.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from trail.wire.log_lines import OnChange
from trail_operator.health import Part

API_VERSION = "coordination.k8s.io/v1"

log = logging.getLogger("trail.operator.lease")


class LeaseConflictError(Exception):
    """Somebody else has created or changed the Lease meanwhile."""


class LeaseApi(Protocol):
    """Leases of one namespace, as plain objects. What else goes wrong is raised as it comes."""

    async def get(self, name: str) -> dict[str, Any] | None:
        """The Lease, None where there is none."""
        ...

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        """Makes it and returns it as stored. Raises LeaseConflictError where it exists."""
        ...

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        """Replaces it and returns it as stored. Raises LeaseConflictError for an old resourceVersion."""
        ...


@dataclass(frozen=True)
class LeaseConfig:
    """The Lease and its times in seconds. Raises ValueError where they cannot keep two apart.

    Others take over after `duration_s` without a change; the holder gives up after `deadline_s` without a
    renewal, which it tries every `renew_s`.
    """

    name: str
    namespace: str
    identity: str
    duration_s: int = 15
    deadline_s: float = 10.0
    renew_s: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.renew_s < self.deadline_s < self.duration_s:
            raise ValueError(
                f"lease times: renew {self.renew_s}, deadline {self.deadline_s}, duration {self.duration_s};"
                " each must be shorter than the next"
            )
        if not self.identity:
            raise ValueError("the lease needs an identity; give the pod's name")


class Elector:
    """Holds the Lease whenever it can, from `run` until it is stopped."""

    def __init__(
        self,
        api: LeaseApi,
        config: LeaseConfig,
        clock: Callable[[], float] = time.monotonic,
        *,
        health: Part | None = None,
    ) -> None:
        """`clock` is monotonic seconds; `health` hears whether the Lease can be read and written."""
        self._api = api
        self._config = config
        self._clock = clock
        self._health = health or Part("lease", clock)
        self._renewed_s: float | None = None
        self._own_version: str | None = None
        self._seen_version: str | None = None
        self._seen_s = 0.0
        self._say = OnChange(log)

    def is_leader(self) -> bool:
        """Whether this operator acts now. It turns false by itself where renewing fails."""
        return self._renewed_s is not None and self._clock() - self._renewed_s < self._config.deadline_s

    async def attempt(self) -> None:
        """Takes or renews the Lease where that is possible now. Never raises."""
        began_s = self._clock()
        was = self.is_leader()
        try:
            # Counted from before the request: the answer may have taken its time.
            self._renewed_s = began_s if await self._take() else None
            self._works()
        except LeaseConflictError:
            self._renewed_s = None
            self._works()
        except Exception as error:  # noqa: BLE001 - an API server that is away ends no operator
            said = f"{type(error).__name__}: {error}"
            self._health.fails(said)
            self._say(f"lease {self._config.namespace}/{self._config.name}: {said}")
        if self.is_leader() != was:
            log.info("%s %s", self._config.identity, "no longer acts" if was else "acts from now on")

    async def run(self, stop: asyncio.Event) -> None:
        """Tries every `renew_s` until `stop`, then lets another one in at once."""
        while not stop.is_set():
            await self.attempt()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._config.renew_s)
        await self.release()

    async def release(self) -> None:
        """Gives the Lease up where it is held. Never raises."""
        if not self.is_leader():
            return
        self._renewed_s = None
        with contextlib.suppress(Exception):
            lease = await self._api.get(self._config.name)
            if lease is not None and _version(lease) == self._own_version:
                await self._api.replace({**lease, "spec": {**lease["spec"], "holderIdentity": ""}})

    async def _take(self) -> bool:
        config = self._config
        lease = await self._api.get(config.name)
        if lease is None:
            metadata = {"name": config.name, "namespace": config.namespace}
            blank = {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata}
            self._own_version = _version(await self._api.create({**blank, "spec": self._held({})}))
            return True
        spec = lease.get("spec") or {}
        if _version(lease) == self._own_version:
            spec = {**spec, "renewTime": _now()}
        # A new process under its old name waits as well: the one before may not have noticed its end.
        elif spec.get("holderIdentity") and not self._expired(lease, spec):
            return False
        else:
            spec = self._held(spec)
        self._own_version = _version(await self._api.replace({**lease, "spec": spec}))
        return True

    def _held(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The Lease's spec after we have taken it over."""
        return {
            **spec,
            "holderIdentity": self._config.identity,
            "leaseDurationSeconds": self._config.duration_s,
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": _count(spec.get("leaseTransitions")) + 1,
        }

    def _expired(self, lease: dict[str, Any], spec: dict[str, Any]) -> bool:
        version = _version(lease)
        if version != self._seen_version:
            self._seen_version, self._seen_s = version, self._clock()
        duration_s = max(_count(spec.get("leaseDurationSeconds")), self._config.duration_s)
        return self._clock() - self._seen_s >= duration_s

    def _works(self) -> None:
        self._health.works()
        self._say("")


def _version(lease: dict[str, Any]) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _now() -> str:
    """Kubernetes' MicroTime, for people to read."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
