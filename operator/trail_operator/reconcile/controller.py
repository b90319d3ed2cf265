"""What the acting replica does about what it sees: stamps, statuses, withdrawals, targets of the loop.

Level-triggered: an event only says which object to look at again. Whoever begins to act looks at everything.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trail_operator import names
from trail_operator.admission.pods import annotations, owner
from trail_operator.admission.review import Outcome
from trail_operator.admission.stamp import Stamp, patch
from trail_operator.cluster_api.kube import Kube, KubeError, path
from trail_operator.control.loop_port import LoopPort
from trail_operator.metrics import Metrics
from trail_operator.policy.resolve import Asked
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reasons import EventReason, Reason, Skip
from trail_operator.reconcile.cluster import Cluster, PodRecord, PolicyKey, PolicyRecord, WorkloadRecord
from trail_operator.reconcile.decide import decide_workload, template_of
from trail_operator.reconcile.event_recorder import EventRecorder, Subject, workload_subject
from trail_operator.reconcile.status import Evidence, build_status, same
from trail_operator.reconcile.withdrawal import Withdrawals
from trail_operator.reconcile.work import WorkQueue

PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets"}
APPS = "apps/v1"

STATUS_DELAY_S = 1.0
"""Pods come and go in crowds: one status speaks for all of a second."""
STATUS_EVERY_S = 10.0
EVICT_DELAY_S = 3.0
"""Time for every replica to hear of a withdrawal before the pod is made anew."""

log = logging.getLogger("trail.operator")


@dataclass(frozen=True)
class Job:
    """Something to look at: `workload`, `policy`, `withdraw` or `evict`, with the object's key."""

    kind: str
    key: tuple[str, ...]


class Controller:
    """Everything runs in one asyncio loop. Only `is_leader` makes it write."""

    def __init__(
        self,
        cluster: Cluster,
        kube: Kube,
        recorder: EventRecorder,
        metrics: Metrics,
        *,
        is_leader: Callable[[], bool],
        loop: LoopPort,
        withdrawals: Withdrawals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is monotonic seconds."""
        self._cluster = cluster
        self._kube = kube
        self._recorder = recorder
        self._metrics = metrics
        self._is_leader = is_leader
        self._loop = loop
        self._withdrawals = withdrawals
        self._clock = clock
        self._acts = False
        self._policy_of: dict[str, str] = {}
        """Policy by workload, of those that the loop follows."""
        self._resolved: dict[str, str] = {}
        """Policy by workload, of those whose template says so, with or without pods."""
        self._problems: dict[str, tuple[str, str]] = {}
        """By workload: policy, and what could not be done."""
        self.queue: WorkQueue[Job] = WorkQueue(self._handle, metrics, clock=clock)

    # ---- what the watches say -------------------------------------------------------------------

    def policy_event(self, kind: str | None, obj: Mapping[str, Any]) -> None:
        """A TrailPolicy came, changed or went."""
        before = self._cluster.policies.get((obj["metadata"]["namespace"], obj["metadata"]["name"]))
        key = self._cluster.observe_policy(kind, obj)
        after = self._cluster.policies.get(key)
        self.queue.add(Job("policy", key))
        if before is None or after is None or before.entry != after.entry:
            everywhere = key == self._cluster.default
            for record in self._cluster.workloads.values():
                if everywhere or record.namespace == key[0] or self._names(record, key):
                    self.queue.add(Job("workload", (record.key,)))

    def namespace_event(self, kind: str | None, obj: Mapping[str, Any]) -> None:
        """A namespace came, changed or went."""
        name = self._cluster.observe_namespace(kind, obj)
        if name is not None:
            for record in self._cluster.workloads.values():
                if record.namespace == name:
                    self.queue.add(Job("workload", (record.key,)))

    def workload_event(self, kind: str | None, obj: Mapping[str, Any], object_kind: str) -> None:
        """A Deployment or StatefulSet came, changed or went."""
        self.queue.add(Job("workload", (self._cluster.observe_workload(kind, obj, object_kind),)))

    def pod_event(self, kind: str | None, obj: Mapping[str, Any]) -> None:
        """An injected pod came, changed or went."""
        before, after = self._cluster.observe_pod(kind, obj)
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if before == after:
            return
        for record in (before, after):
            if record is not None:
                self._status_soon(record.policy)
        if (wait_s := self._withdrawals.note(key, after)) is not None:
            self.queue.add(Job("withdraw", key), wait_s)

    def skipped(self, outcome: Outcome) -> None:
        """The webhook has left a pod as it is: its owner hears why."""
        if outcome.skip is None or outcome.pod is None or outcome.skip.reason is Reason.OPTED_OUT:
            return
        subject = self._owner_of(outcome.namespace, outcome.workload, outcome.pod)
        message = f"TRAIL was not injected: {outcome.skip.message}"
        self._recorder.record(subject, str(outcome.skip.reason), message)

    # ---- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Works for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run())
            group.create_task(self._watch_leadership())

    def look_at_everything(self) -> None:
        """Queues all that is known."""
        for record in self._cluster.workloads.values():
            self.queue.add(Job("workload", (record.key,)))
        for key in self._cluster.policies:
            self.queue.add(Job("policy", key))
        for key, pod in self._cluster.pods.items():
            self._withdrawals.note(key, pod)
            if (wait_s := self._withdrawals.remaining_s(key)) is not None:
                self.queue.add(Job("withdraw", key), wait_s)

    async def _watch_leadership(self) -> None:
        last_s = self._clock()
        while True:
            acts = self._is_leader()
            if acts != self._acts:
                self._acts = acts
                self._metrics.leader.set(int(acts))
                self.queue.clear()
                self.look_at_everything()
            if acts and self._clock() - last_s >= STATUS_EVERY_S:
                last_s = self._clock()
                for key in self._cluster.policies:
                    self.queue.add(Job("policy", key))
            await asyncio.sleep(0.5)

    async def _handle(self, job: Job) -> None:
        if not self._is_leader():
            return
        match job.kind:
            case "workload":
                await self._workload(job.key[0])
            case "policy":
                await self._policy((job.key[0], job.key[1]))
            case "withdraw":
                await self._withdraw((job.key[0], job.key[1]))
            case "evict":
                await self._withdrawals.evict((job.key[0], job.key[1]), job.key[2])

    # ---- workloads ------------------------------------------------------------------------------

    async def _workload(self, key: str) -> None:
        record = self._cluster.workloads.get(key)
        if record is None:
            self._forget(key)
            return
        verdict = decide_workload(self._cluster, record)
        outcome, wanted = verdict.owned or verdict.outcome, verdict.stamp
        self._note(record, outcome, verdict.asked)
        body = patch(record.stamp, wanted, record.version)
        if body is None:
            self._problems.pop(key, None)
            return
        await self._stamp(record, body, wanted, outcome)

    async def _stamp(
        self, record: WorkloadRecord, body: dict[str, Any], wanted: Stamp, outcome: TrailPolicy | Skip | None
    ) -> None:
        where = path(APPS, PLURALS[record.kind], record.namespace, record.name)
        policy = outcome.key if isinstance(outcome, TrailPolicy) else ""
        try:
            answer = await self._kube.patch(where, body)
        except KubeError as error:
            if error.status == 409:
                # Somebody was faster. The watch may take its time to say so.
                self._cluster.observe_workload("MODIFIED", await self._kube.get(where), record.kind)
            elif error.status != 404:
                self._problems[record.key] = (policy, f"{record.key} cannot be changed: {error}")
                self._status_soon(policy)
            raise
        if answer.get("metadata"):
            self._cluster.observe_workload("MODIFIED", answer, record.kind)
        self._problems.pop(record.key, None)
        change = (
            EventReason.REMOVED
            if wanted == Stamp()
            else EventReason.ADDED
            if record.stamp == Stamp()
            else EventReason.CHANGED
        )
        word, said = {
            EventReason.ADDED: ("added", f"TRAIL is switched on by TrailPolicy {policy}"),
            EventReason.CHANGED: ("changed", f"TrailPolicy {policy} has changed"),
            EventReason.REMOVED: ("removed", "TRAIL is switched off"),
        }[change]
        self._metrics.stamps.labels(change=word).inc()
        log.info("%s: stamp %s, its pods roll", record.key, word)
        self._recorder.record(workload_subject(record), str(change), f"{said}; pods roll", warning=False)
        self._status_soon(policy)

    def _note(self, record: WorkloadRecord, outcome: TrailPolicy | Skip | None, asked: Asked) -> None:
        before = self._resolved.pop(record.key, "")
        if isinstance(outcome, TrailPolicy):
            self._resolved[record.key] = outcome.key
        elif (
            outcome is not None
            and outcome.reason is not Reason.OPTED_OUT
            and (asked.wanted or outcome.wanted)
        ):
            message = f"TRAIL is not injected: {outcome.message}"
            if self._recorder.record(workload_subject(record), str(outcome.reason), message):
                self._metrics.workload_skips.labels(reason=str(outcome.reason)).inc()
        after = self._resolved.get(record.key, "")
        if before != after:
            self._status_soon(before)
            self._status_soon(after)

    def _forget(self, key: str) -> None:
        self._problems.pop(key, None)
        if policy := self._resolved.pop(key, ""):
            self._status_soon(policy)

    # ---- policies -------------------------------------------------------------------------------

    async def _policy(self, key: PolicyKey) -> None:
        name = f"{key[0]}/{key[1]}"
        record = self._cluster.policies.get(key)
        pods = [pod for pod in self._cluster.pods.values() if pod.policy == name]
        await self._target(name, record, pods)
        if record is None:
            self._count(key, {})
            return
        loops = {w: state for w, p in self._policy_of.items() if p == name and (state := self._loop.state(w))}
        problems = sorted(why for policy, why in self._problems.values() if policy == name)
        async with self._withdrawals.lock:
            record = self._cluster.policies.get(key, record)
            evidence = Evidence(pods, loops, problems, self._withdrawals.valid(record))
            await self._write_status(key, record, evidence)

    async def _target(self, name: str, record: PolicyRecord | None, pods: list[PodRecord]) -> None:
        """Has the loop follow the workloads of a policy, and leave those that are no longer its own."""
        policy = record.entry.policy if record is not None else None
        mine = {pod.workload for pod in pods} | {w for w, p in self._resolved.items() if p == name}
        if policy is not None:
            for workload in mine:
                self._policy_of[workload] = name
                self._loop.follow(workload, policy.c)
        for workload in [w for w, p in self._policy_of.items() if p == name and w not in mine]:
            del self._policy_of[workload]
            await self._loop.leave(workload)

    async def _write_status(self, key: PolicyKey, record: PolicyRecord, evidence: Evidence) -> None:
        status = build_status(record, evidence, _now())
        self._count(key, status["pods"])
        if same(record.status, status):
            return
        where = path(names.API_VERSION, names.PLURAL, key[0], key[1], "status")
        answer = await self._kube.patch(where, {"status": status})
        if answer.get("metadata"):
            self._cluster.observe_policy("MODIFIED", answer)

    def _count(self, key: PolicyKey, counts: Mapping[str, int]) -> None:
        for state in ("injected", "healthy", "fallingBack", "outdated"):
            self._metrics.pods.labels(namespace=key[0], policy=key[1], state=state).set(counts.get(state, 0))

    def _status_soon(self, policy: str) -> None:
        namespace, _, name = policy.partition("/")
        if name:
            self.queue.add(Job("policy", (namespace, name)), STATUS_DELAY_S)

    async def _withdraw(self, key: tuple[str, str]) -> None:
        remaining_s = self._withdrawals.remaining_s(key)
        if remaining_s is None:
            return
        if remaining_s > 0:
            self.queue.add(Job("withdraw", key), remaining_s)
            return
        pod = self._cluster.pods.get(key)
        if await self._withdrawals.withdraw(key) and pod is not None:
            self.queue.add(Job("evict", (*key, pod.uid)), EVICT_DELAY_S)
            self._status_soon(pod.policy)

    # ---- words ----------------------------------------------------------------------------------

    def _names(self, record: WorkloadRecord, key: PolicyKey) -> bool:
        """Whether a workload names a policy of another namespace."""
        both = (record.annotation, annotations(template_of(record)).get(names.INJECT))
        return any(text is not None and text.strip() == f"{key[0]}/{key[1]}" for text in both)

    def _owner_of(self, namespace: str, workload: str, pod: Mapping[str, Any]) -> Subject:
        record = self._cluster.workloads.get(workload)
        if record is not None:
            return workload_subject(record)
        reference = owner(pod)
        if reference is not None:
            version, kind, name, uid = (
                str(reference.get(k, "")) for k in ("apiVersion", "kind", "name", "uid")
            )
            return Subject(version, kind, namespace, name, uid)
        return Subject("v1", "Pod", namespace, workload.rsplit("/", 1)[-1])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
