"""Events on users' objects: posted in the background, each thing said once in a while."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from trail_operator.cluster_api.kube import Kube, KubeError, path
from trail_operator.reconcile.cluster import PodRecord, WorkloadRecord

_SAY_AGAIN_S = 600.0
_REMEMBERED = 10_000
_WAITING = 1000
_MESSAGE_LIMIT = 1000

log = logging.getLogger("trail.operator.events")


@dataclass(frozen=True)
class Subject:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


def workload_subject(record: WorkloadRecord) -> Subject:
    """A Deployment or StatefulSet."""
    return Subject("apps/v1", record.kind, record.namespace, record.name, record.uid)


def pod_subject(pod: PodRecord) -> Subject:
    """A pod."""
    return Subject("v1", "Pod", pod.namespace, pod.name, pod.uid)


class EventRecorder:
    """Posts Events. `record` returns at once; what is too much is dropped."""

    def __init__(self, kube: Kube, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`instance` names this replica; `clock` is monotonic seconds."""
        self._kube = kube
        self._instance = instance
        self._clock = clock
        self._said: OrderedDict[tuple[Subject, str, str], float] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Subject, str, str, str]] = asyncio.Queue(_WAITING)

    def record(self, subject: Subject, reason: str, message: str, *, warning: bool = True) -> bool:
        """Has an Event posted unless the same was said of late; whether it will be."""
        now_s, key = self._clock(), (subject, reason, message)
        if now_s - self._said.get(key, -_SAY_AGAIN_S) < _SAY_AGAIN_S:
            return False
        try:
            self._queue.put_nowait(
                (subject, reason, message[:_MESSAGE_LIMIT], "Warning" if warning else "Normal")
            )
        except asyncio.QueueFull:
            return False
        self._said[key] = now_s
        self._said.move_to_end(key)
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return True

    async def run(self) -> None:
        """Posts for ever."""
        while True:
            subject, reason, message, kind = await self._queue.get()
            try:
                await self._post(subject, reason, message, kind)
            except (KubeError, OSError, TimeoutError) as error:
                log.warning("no Event %s on %s %s: %s", reason, subject.kind, subject.name, error)
            finally:
                self._queue.task_done()

    async def drained(self) -> None:
        """Waits until nothing waits to be posted."""
        await self._queue.join()

    async def _post(self, subject: Subject, reason: str, message: str, kind: str) -> None:
        now = datetime.now(UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = hashlib.sha256(f"{subject}{reason}{message}{now.isoformat()}".encode()).hexdigest()[:16]
        await self._kube.create(
            path("v1", "events", subject.namespace),
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{subject.name[:230]}.{digest}", "namespace": subject.namespace},
                "involvedObject": {
                    "apiVersion": subject.api_version,
                    "kind": subject.kind,
                    "namespace": subject.namespace,
                    "name": subject.name,
                    **({"uid": subject.uid} if subject.uid else {}),
                },
                "reason": reason,
                "message": message,
                "type": kind,
                "source": {"component": "trail-operator"},
                "reportingComponent": "trail.dev/operator",
                "reportingInstance": self._instance,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "count": 1,
            },
        )
