"""Takes injection back where something of ours keeps pods from starting.

The withdrawal is written into the policy's status, where every replica's webhook sees it, and holds for this
very injection: another image or another setting is tried again. The pods that are stuck, and only those, are
evicted; whatever controls them makes others, which the webhook leaves as they are.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from trail_operator import names
from trail_operator.admission.confighash import injection_hash
from trail_operator.cluster_api.kube import Kube, KubeError, path
from trail_operator.metrics import Metrics
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reconcile.blocked import Blocked
from trail_operator.reconcile.cluster import Cluster, PodRecord, PolicyRecord
from trail_operator.reconcile.decide import asked_of, decide, template_of
from trail_operator.reconcile.event_recorder import EventRecorder, Subject, pod_subject, workload_subject

MOST = 500
"""Withdrawals that a policy's status holds."""
MOST_CAUSES = 1000
"""Stuck pods whose cause is remembered."""

PodKey = tuple[str, str]

log = logging.getLogger("trail.operator")


class Withdrawals:
    """Keeps since when pods are stuck, and why. `lock` is held by whoever writes a policy's status."""

    def __init__(
        self,
        cluster: Cluster,
        kube: Kube,
        recorder: EventRecorder,
        metrics: Metrics,
        *,
        after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A pod may be stuck for `after_s`; `clock` is monotonic seconds."""
        self._cluster = cluster
        self._kube = kube
        self._recorder = recorder
        self._metrics = metrics
        self._after_s = after_s
        self._clock = clock
        self._since_s: dict[PodKey, float] = {}
        self._causes: OrderedDict[PodKey, tuple[str, dict[tuple[str, str], str]]] = OrderedDict()
        """By pod: its uid, and the first cause that was told, by container and reason."""
        self.lock = asyncio.Lock()

    def note(self, key: PodKey, pod: PodRecord | None) -> float | None:
        """A pod was seen, or is gone (None). Seconds to wait before `withdraw`, where it is newly stuck."""
        if pod is None or pod.blocked is None:
            self._since_s.pop(key, None)
            self._causes.pop(key, None)
            return None
        self._remember(key, pod.uid, pod.blocked)
        if key in self._since_s:
            return None
        self._since_s[key] = self._clock()
        return self._after_s

    def remaining_s(self, key: PodKey) -> float | None:
        """Seconds that a pod may still be stuck; None for one that is not."""
        since_s = self._since_s.get(key)
        return None if since_s is None else max(since_s + self._after_s - self._clock(), 0.0)

    def valid(self, record: PolicyRecord) -> list[dict[str, Any]]:
        """Withdrawals that hold: of this very injection, and of workloads that still ask for it."""
        policy = record.entry.policy
        items = [dict(w) for w in record.status.get("withdrawn") or () if isinstance(w, Mapping)]
        if policy is None:
            return items
        present = injection_hash(policy, self._cluster.settings)
        return [
            w for w in items if w.get("hash") == present and self._still_asks(str(w.get("workload")), policy)
        ]

    async def withdraw(self, key: PodKey) -> bool:
        """Takes back what keeps a pod stuck; whether it is to be evicted. Raises as `Kube` does."""
        pod = self._cluster.pods.get(key)
        if pod is None or pod.blocked is None:
            return False
        why = self._told(key, pod.uid, pod.blocked)
        namespace, _, name = pod.policy.partition("/")
        if (namespace, name) not in self._cluster.policies or not pod.controlled:
            self._recorder.record(
                pod_subject(pod),
                str(why.reason),
                f"TRAIL keeps this pod from starting: {why.message}; set {names.INJECT} to disabled"
                " or mend the policy, and delete the pod",
            )
            return False
        async with self.lock:
            await self._write(namespace, name, pod, why)
        self._metrics.withdrawals.labels(reason=str(why.reason)).inc()
        message = f"TRAIL is taken back, since it keeps pods from starting: {why.message}"
        self._recorder.record(self._subject(pod), str(why.reason), message)
        log.warning("%s: %s", pod.workload, message)
        return True

    async def evict(self, key: PodKey, uid: str) -> None:
        """Has the controller of a stuck pod make another one. Raises as `Kube` does."""
        pod = self._cluster.pods.get(key)
        if pod is None or pod.uid != uid or pod.blocked is None:
            return
        where = path("v1", "pods", key[0], key[1], "eviction")
        try:
            await self._kube.create(where, _eviction("policy/v1", key, uid))
        except KubeError as error:
            # Servers before 1.22 know the older version alone.
            if error.status not in (400, 415, 422):
                raise
            await self._kube.create(where, _eviction("policy/v1beta1", key, uid))

    def _remember(self, key: PodKey, uid: str, why: Blocked) -> None:
        """Keeps what a kubelet says once, and no longer while it backs off."""
        known = self._causes.pop(key, None)
        # Pods of a StatefulSet come back by the same name.
        causes = known[1] if known is not None and known[0] == uid else {}
        if why.telling:
            causes.setdefault((why.container, str(why.reason)), why.message)
        if causes:
            self._causes[key] = uid, causes
        while len(self._causes) > MOST_CAUSES:
            self._causes.popitem(last=False)

    def _told(self, key: PodKey, uid: str, why: Blocked) -> Blocked:
        """What keeps a pod, by the cause that was told earlier where its status holds none any more."""
        known = self._causes.get(key)
        if why.telling or known is None or known[0] != uid:
            return why
        return replace(why, message=known[1].get((why.container, str(why.reason)), why.message))

    async def _write(self, namespace: str, name: str, pod: PodRecord, why: Blocked) -> None:
        record = self._cluster.policies[namespace, name]
        items = [w for w in self.valid(record) if w.get("workload") != pod.workload]
        items.append(
            {
                "workload": pod.workload,
                "hash": pod.injection_hash,
                "reason": str(why.reason),
                "message": why.message,
                "since": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
        where = path(names.API_VERSION, names.PLURAL, namespace, name, "status")
        answer = await self._kube.patch(where, {"status": {"withdrawn": items[-MOST:]}})
        if answer.get("metadata"):
            # The next one of a crowd builds on this one, not on what the watch will say.
            self._cluster.observe_policy("MODIFIED", answer)

    def _still_asks(self, workload: str, policy: TrailPolicy) -> bool:
        kind = workload.split("/")[1] if workload.count("/") == 2 else ""
        if kind not in ("deployment", "statefulset"):
            return True
        record = self._cluster.workloads.get(workload)
        if record is None:
            return False
        template = template_of(record)
        found = decide(self._cluster, asked_of(self._cluster, record, template), template)
        return isinstance(found, TrailPolicy) and found.key == policy.key

    def _subject(self, pod: PodRecord) -> Subject:
        record = self._cluster.workloads.get(pod.workload)
        return workload_subject(record) if record is not None else pod_subject(pod)


def _eviction(version: str, key: PodKey, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": "Eviction",
        "metadata": {"namespace": key[0], "name": key[1]},
        # Not its successor of the same name, as StatefulSets have.
        "deleteOptions": {"preconditions": {"uid": uid}},
    }
