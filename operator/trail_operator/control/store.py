"""Redis as the operator sees it: reports in, c out. Keys, fields and scripts: `trail.wire.redis_schema`."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from trail.policy.controller import ControllerState
from trail.wire.redis_schema import (
    CONTROL_SCRIPT,
    EXPIRY_INTERVALS,
    SCHEMA_VERSION,
    ControlRecord,
    Keys,
    PodReport,
    Rejected,
    check_pod,
    decode_control,
    decode_report,
    encode_control,
)
from trail_operator.access import sidecar_rules, sidecar_user

TIMEOUT_S = 2.0
CONNECTIONS = 16
PODS_LIMIT = 5000
"""Pods of a workload that are read, at most; the latest to report."""

Failure = (RedisError, OSError, TimeoutError)
"""What a Redis that is away, full, read-only or not ours may raise."""


@dataclass(frozen=True)
class WorkloadState:
    """What Redis holds of a workload at `now_ms`, its own time.

    `reports` are those not older than a few of their intervals, by pod; `heard_ms` is when each was written.
    `rejected` says what is wrong with the others.
    """

    now_ms: int
    reports: dict[str, PodReport] = field(default_factory=dict)
    heard_ms: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, Rejected] = field(default_factory=dict)
    control: ControlRecord | None = None
    state: ControllerState | None = None


def connect(url: str) -> Redis:
    """A client of `redis://` or `rediss://` that connects when first used. Raises ValueError for the URL."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),  # a connection that Redis closed while it was idle
    )
    return Redis(connection_pool=pool)


class Store:
    """Reads and writes by `client`. Every method raises one of `Failure` where Redis cannot be used.

    With a `key` the users of sidecars are kept, too: whoever is read about is let in, which a Redis that has
    forgotten everything needs to hear again.
    """

    def __init__(self, client: Redis, key: str = "") -> None:
        self._client: Any = client
        self._key = key
        self._read_only_keys: bool | None = None
        self._control = self._client.register_script(CONTROL_SCRIPT)

    async def read(self, workload: str) -> WorkloadState:
        """Everything about `workload`. What cannot be read is left out or rejected by name."""
        keys = Keys(workload)
        admission = await self._admission(workload)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrevrange(keys.pods, 0, PODS_LIMIT - 1, withscores=True)
            pipe.hgetall(keys.c)
            pipe.get(keys.state)
            if admission:
                pipe.execute_command("ACL", "SETUSER", *admission)
            (seconds, micros), members, control, state, *_ = await pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        names, rejected = _pod_names(members)
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(keys.pod(name))
            found = await pipe.execute() if names else []
        reports: dict[str, PodReport] = {}
        for name, raw in zip(names, found, strict=True):
            report = decode_report(raw) if raw else None
            if isinstance(report, Rejected):
                rejected[name] = report
            elif report is not None and now_ms - names[name] <= 1000 * EXPIRY_INTERVALS * report.interval_s:
                reports[name] = report
        record = decode_control(control) if control else None
        if isinstance(record, Rejected):
            rejected["c"] = record
            record = None
        heard = {name: names[name] for name in reports}
        return WorkloadState(now_ms, reports, heard, rejected, record, decode_state(state))

    async def write_c(self, workload: str, c: float, reason: str, seen_generation: int) -> tuple[bool, int]:
        """Writes c; whether it was written, and the generation that is now in Redis.

        It is not where Redis holds a generation later than `seen_generation`: somebody else has written.
        """
        keys = Keys(workload)
        encoded = encode_control(ControlRecord(c, 0, reason))
        written, generation = await self._control(
            keys=[keys.c],
            args=[seen_generation, keys.hint, encoded["version"], encoded["c"], encoded["reason"]],
        )
        return bool(int(written)), int(generation)

    async def save_state(self, workload: str, state: ControllerState) -> None:
        """Keeps what the controller remembers, for the operator that comes after this one."""
        await self._client.set(Keys(workload).state, encode_state(state))

    async def forget(self, workload: str) -> None:
        """Removes c and the controller's memory of a workload that is no longer controlled, and its user."""
        keys = Keys(workload)
        await self._client.delete(keys.c, keys.state)
        if self._key:
            await self._client.execute_command("ACL", "DELUSER", sidecar_user(workload))

    async def _admission(self, workload: str) -> list[str]:
        """Name and rights of a workload's sidecars; empty where nobody keeps users."""
        if not self._key:
            return []
        if self._read_only_keys is None:
            version = str((await self._client.info("server"))["redis_version"])
            self._read_only_keys = int(version.split(".", 1)[0]) >= 7
        rules = sidecar_rules(self._key, workload, read_only_keys=self._read_only_keys)
        return [sidecar_user(workload), *rules]

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


def encode_state(state: ControllerState) -> str:
    """The controller's memory as JSON; null stands for what is not known."""
    values = {name: None if math.isnan(value) else value for name, value in asdict(state).items()}
    return json.dumps({"version": SCHEMA_VERSION, **values}, allow_nan=False)


def decode_state(text: bytes | None) -> ControllerState | None:
    """The controller's memory, or None where it is absent or no build like this one wrote it."""
    try:
        values = json.loads(text or b"null")
    except ValueError:
        return None
    if not isinstance(values, dict) or values.pop("version", None) != SCHEMA_VERSION:
        return None
    known = {item.name: item.type for item in fields(ControllerState)}
    if set(values) != set(known):
        return None
    read: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            value = math.nan  # noqa: PLW2901 - null is how NaN is written
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value) or value < 0:
            return None
        if known[name] is int and not isinstance(value, int):
            return None
        read[name] = value
    state = ControllerState(**read)
    return state if state.c <= 1 and not math.isnan(state.ceiling) else None


def _pod_names(members: list[tuple[bytes, float]]) -> tuple[dict[str, int], dict[str, Rejected]]:
    """Pods and when they were heard, and those whose names are no names."""
    names: dict[str, int] = {}
    rejected: dict[str, Rejected] = {}
    for raw, score in members:
        name = raw.decode("utf-8", "replace")
        try:
            names[check_pod(name)] = int(score)
        except (ValueError, OverflowError):
            rejected[name[:80]] = Rejected("pod", "is no Kubernetes name or UID")
    return names, rejected
