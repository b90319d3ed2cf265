"""The operator against kmock's API server: its real parts, kopf's watches, our client, and the lease."""

import asyncio
import contextlib
import copy
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import kmock
import pytest
from aiohttp import ServerDisconnectedError
from operator_api import FakeApi
from operator_kit import DEFAULT, SETTINGS, admit, make_pod, make_policy

from trail_operator import command, names
from trail_operator.admission.confighash import injection_hash, policy_hash
from trail_operator.admission.review import Outcome, decide
from trail_operator.cluster_api.kube import Kube, KubeError, path
from trail_operator.command import Operator, remove_stamps
from trail_operator.config import OperatorConfig
from trail_operator.policy.resource import parse_policy
from trail_operator.reconcile import controller, handlers
from trail_operator.reconcile.listing import load, look_at_version

Object = dict[str, Any]
POLICIES, DEPLOYMENTS, STATEFUL_SETS, PODS = (
    "trail.dev/v1alpha1/trailpolicies",
    "apps/v1/deployments",
    "apps/v1/statefulsets",
    "v1/pods",
)
HASH = policy_hash(parse_policy(make_policy()))
PATIENCE_S = 60.0


async def eventually(holds: Callable[[], Any]) -> None:
    """Waits until something holds; the limit is for a hung test alone."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
                if holds():
                    return
            await asyncio.sleep(0.02)


def make_deployment(name: str = "llama", inject: str | None = "enabled", **more: Any) -> Object:
    annotations = {} if inject is None else {names.INJECT: inject}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "llm", "annotations": {"mine": "1", **annotations}, **more},
        "spec": {
            "replicas": 1,
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"theirs": "2"}},
                "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.32.0"}]},
            },
        },
    }


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApi]:
    monkeypatch.setattr(controller, "STATUS_DELAY_S", 0.05)
    monkeypatch.setattr(controller, "EVICT_DELAY_S", 0.05)
    monkeypatch.setattr(command, "_AGAIN_S", 0.2)
    monkeypatch.setattr(handlers, "AGAIN_S", (0.2,))
    monkeypatch.setattr(handlers, "BACKOFFS_S", (0.02,))
    monkeypatch.setattr(handlers, "SETTLED_S", 0.2)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    async with FakeApi() as fake, kmock.Server(fake):
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path)))
        fake.label("llm")
        yield fake


class Running:
    """An operator from start to stop, on the event loop of the test."""

    def __init__(self, operator: Operator, stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
        self.operator = operator
        self._stop = stop
        self._task = task

    async def stop(self) -> None:
        self._stop.set()
        await self._task

    async def settled(self) -> None:
        """Waits until it acts and nothing is left to do."""
        await eventually(lambda: self.operator.elector.is_leader() and self.operator.controller.queue.idle)
        await asyncio.sleep(0.3)
        await eventually(lambda: self.operator.controller.queue.idle)
        await self.operator.recorder.drained()


@pytest.fixture
async def start(api: FakeApi) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    started: list[Running] = []
    connections: list[Kube] = []

    async def start_one(identity: str = "one", **more: Any) -> Running:
        settings = {"withdraw_after_s": 1.0, "default_policy": DEFAULT, "metrics_port": 0, **more}
        config = OperatorConfig("trail-system", identity, SETTINGS, **settings)
        kube = await Kube.connect()
        connections.append(kube)
        operator, stop = Operator(config, kube), asyncio.Event()
        started.append(Running(operator, stop, asyncio.create_task(operator.run(stop))))
        return started[-1]

    yield start_one
    for running in started:
        await running.stop()
    for kube in connections:
        await kube.close()
    # What kopf's tasks failed with and nobody asked for is told when they are collected, with a traceback
    # that Python 3.11 parses code for: not while a compiler is at work somewhere else, which it would break.
    gc.collect()


Start = Callable[..., Awaitable[Running]]


def template_annotations(api: FakeApi, name: str = "llama", kind: str = DEPLOYMENTS) -> dict[str, str]:
    return dict(api.stored(kind, "llm", name)["spec"]["template"]["metadata"]["annotations"])


def stamped(api: FakeApi, name: str = "llama", digest: str = HASH, inject: str | None = "enabled") -> bool:
    wanted = {"theirs": "2", names.STAMPED_HASH: digest}
    if inject is not None:
        wanted[names.STAMPED_INJECT] = inject
    return template_annotations(api, name) == wanted


def bare(api: FakeApi, name: str = "llama") -> bool:
    return template_annotations(api, name) == {"theirs": "2"}


async def test_an_annotated_deployment_is_stamped_and_nothing_else_of_it_changes(
    api: FakeApi, start: Start
) -> None:
    await api.add(POLICIES, make_policy())
    running = await start()
    await api.add(DEPLOYMENTS, make_deployment())
    await eventually(lambda: stamped(api))
    await running.settled()
    stored, before = api.stored(DEPLOYMENTS, "llm", "llama"), make_deployment()
    assert stored["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert stored["spec"]["template"]["spec"] == before["spec"]["template"]["spec"]
    for kind, name in ((DEPLOYMENTS, "llama"), (POLICIES, "default")):
        metadata = api.stored(kind, "llm", name)["metadata"]
        assert "finalizers" not in metadata
        assert not [key for key in metadata.get("annotations", {}) if "kopf" in key]
    assert (
        "Deployment llama",
        "TrailAdded",
        "TRAIL is switched on by TrailPolicy llm/default; pods roll",
    ) in api.events()
    assert len(api.writes("deployments")) == 1


async def test_a_stateful_set_is_stamped_as_well(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(STATEFUL_SETS, {**make_deployment("chat"), "kind": "StatefulSet"})
    await start()
    await eventually(lambda: template_annotations(api, "chat", STATEFUL_SETS)[names.STAMPED_HASH] == HASH)


async def test_a_changed_policy_rolls_pods_and_a_changed_c_does_not(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    running = await start()
    await eventually(lambda: stamped(api))
    await api.change(POLICIES, "llm", "default", {"spec": {"c": {"mode": "Fixed", "value": 0.3}}})
    await eventually(lambda: api.stored(POLICIES, "llm", "default")["status"]["observedGeneration"] == 2)
    await running.settled()
    assert stamped(api)
    assert api.stored(POLICIES, "llm", "default")["status"]["c"]["effective"] == 0.3
    await api.change(POLICIES, "llm", "default", {"spec": {"everySteps": 4}})
    changed = policy_hash(parse_policy(api.stored(POLICIES, "llm", "default")))
    assert changed != HASH
    await eventually(lambda: stamped(api, digest=changed))
    # A slip in the policy changes nothing on what runs.
    await api.change(POLICIES, "llm", "default", {"spec": {"everySteps": 0}})
    await eventually(lambda: condition(api, "Ready") == ("False", "InvalidSpec"))
    await running.settled()
    assert stamped(api, digest=changed)
    assert [reason for _, reason, _ in api.events()].count("PolicyInvalid") == 1


def condition(api: FakeApi, kind: str, name: str = "default") -> tuple[str, str]:
    conditions = {c["type"]: c for c in api.stored(POLICIES, "llm", name)["status"]["conditions"]}
    return conditions[kind]["status"], conditions[kind]["reason"]


async def test_a_removed_annotation_leaves_nothing(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    await start()
    await eventually(lambda: stamped(api))
    await api.change(DEPLOYMENTS, "llm", "llama", {"metadata": {"annotations": {names.INJECT: None}}})
    await eventually(lambda: bare(api))
    expected = make_deployment(inject=None)
    stored = api.stored(DEPLOYMENTS, "llm", "llama")
    assert stored["spec"] == expected["spec"]
    assert stored["metadata"]["annotations"] == expected["metadata"]["annotations"]


async def test_a_deleted_policy_lets_go_and_another_takes_over(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(POLICIES, make_policy("mine"))
    await api.add(DEPLOYMENTS, make_deployment(inject="mine"))
    await api.add(DEPLOYMENTS, make_deployment("other"))
    await start()
    mine = policy_hash(parse_policy(make_policy("mine")))
    await eventually(lambda: stamped(api, digest=mine, inject="mine") and stamped(api, "other"))
    await api.remove(POLICIES, "llm", "mine")
    await eventually(lambda: bare(api))
    assert stamped(api, "other")
    await api.remove(POLICIES, "llm", "default")
    await eventually(lambda: bare(api, "other"))
    await api.add(POLICIES, make_policy("cluster", "trail-system", everySteps=9))
    digest = policy_hash(parse_policy(make_policy("cluster", "trail-system", everySteps=9)))
    await eventually(lambda: stamped(api, "other", digest))


async def test_a_selector_and_a_namespace_ask_for_their_workloads(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy("picky", workloads={"selector": {"matchLabels": {"app": "llama"}}}))
    await api.add(DEPLOYMENTS, make_deployment(inject=None))
    await api.add(DEPLOYMENTS, make_deployment("other", inject=None))
    running = await start()
    picky = policy_hash(parse_policy(make_policy("picky")))
    await eventually(lambda: stamped(api, digest=picky, inject=None))
    assert bare(api, "other")
    # The workload's refusal reaches the pods, which the selector would have taken.
    await api.change(DEPLOYMENTS, "llm", "llama", {"metadata": {"annotations": {names.INJECT: "disabled"}}})
    await eventually(lambda: template_annotations(api) == {"theirs": "2", names.STAMPED_INJECT: "disabled"})
    await api.add(POLICIES, make_policy())
    await eventually(lambda: ("llm", "default") in running.operator.cluster.policies)
    api.label("llm", **{names.INJECT: "enabled"})
    await eventually(lambda: stamped(api, "other", inject=None))


async def test_a_restart_finds_everything_as_it_should_be(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    first = await start("one")
    await eventually(lambda: stamped(api))
    await first.settled()
    await first.stop()
    stamps, statuses = len(api.writes("deployments")), len(api.writes("trailpolicies"))
    await api.add(DEPLOYMENTS, make_deployment("late"))
    second = await start("two")
    await eventually(lambda: stamped(api, "late"))
    await second.settled()
    assert len(api.writes("deployments")) == stamps + 1
    assert len(api.writes("trailpolicies")) == statuses


async def test_one_of_two_acts_and_the_other_takes_over(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    first = await start("one")
    await first.settled()
    second = await start("two")
    await eventually(lambda: ("llm", "default") in second.operator.cluster.view.policies)
    await api.add(DEPLOYMENTS, make_deployment())
    await eventually(lambda: stamped(api))
    await eventually(
        lambda: second.operator.cluster.workloads["llm/deployment/llama"].stamp.config_hash == HASH
    )
    assert not second.operator.elector.is_leader()
    assert len(api.writes("deployments")) == 1
    # Both admit: the webhook is no matter of who acts.
    for running in (first, second):
        assert decide(make_pod(), "llm", running.operator.cluster.view)[0].kind == "injected"
    await first.stop()
    await eventually(second.operator.elector.is_leader)
    await api.add(DEPLOYMENTS, make_deployment("late"))
    await eventually(lambda: stamped(api, "late"))


async def test_a_conflict_is_tried_again_on_what_is_there_now(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    running = await start()
    await running.settled()

    def somebody() -> None:
        stored = api.objects[DEPLOYMENTS, "llm", "llama"].raw
        stored["metadata"]["resourceVersion"] = api._next()
        api.objects[DEPLOYMENTS, "llm", "llama"] = copy.deepcopy(stored)

    api.interfere = [somebody, somebody]
    await api.add(DEPLOYMENTS, make_deployment())
    await eventually(lambda: stamped(api))
    assert len(api.writes("deployments")) == 3


async def test_a_missing_permission_is_told_and_holds_up_nobody_else(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    api.forbidden = {("PATCH", "deployments", "")}
    running = await start()
    await api.add(DEPLOYMENTS, make_deployment())
    await api.add(STATEFUL_SETS, {**make_deployment("chat"), "kind": "StatefulSet"})
    await eventually(lambda: template_annotations(api, "chat", STATEFUL_SETS)[names.STAMPED_HASH] == HASH)
    await eventually(lambda: condition(api, "Degraded") == ("True", "OperatorFailed"))
    status = api.stored(POLICIES, "llm", "default")["status"]
    message = next(c["message"] for c in status["conditions"] if c["type"] == "Degraded")
    assert "llm/deployment/llama cannot be changed: 403" in message
    assert bare(api)
    # Granted: the next look mends it.
    api.forbidden = set()
    running.operator.controller.look_at_everything()
    await eventually(lambda: stamped(api))
    await eventually(lambda: condition(api, "Degraded") == ("False", "AsExpected"))


async def test_without_the_right_to_look_it_waits_and_then_begins(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    api.forbidden = {("GET", "statefulsets", "")}
    running = await start()
    refused = lambda: [r for r in api._requests if r.resource and r.resource.plural == "statefulsets"]  # noqa: E731
    await eventually(lambda: len(refused()) >= 2)
    assert bare(api)
    assert not running.operator.elector.is_leader()
    api.forbidden = set()
    await eventually(lambda: stamped(api))


async def test_events_that_may_not_be_posted_harm_nobody(api: FakeApi, start: Start) -> None:
    api.forbidden = {("POST", "events", "")}
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    await start()
    await eventually(lambda: stamped(api))


async def test_a_watch_that_lost_something_is_caught_up_with(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    await api.add(DEPLOYMENTS, make_deployment("goes"))
    running = await start()
    await eventually(lambda: stamped(api) and stamped(api, "goes"))
    await running.settled()
    # Behind every watch's back: one goes, one comes.
    del api.objects[DEPLOYMENTS, "llm", "goes"]
    late = make_deployment("late")
    late["metadata"] |= {"uid": "uid-late", "resourceVersion": api._next()}
    api.objects[DEPLOYMENTS, "llm", "late"] = late
    assert "llm/deployment/goes" in running.operator.cluster.workloads
    await load(running.operator.cluster, running.operator.controller, running.operator.kube)
    assert "llm/deployment/goes" not in running.operator.cluster.workloads
    await eventually(lambda: stamped(api, "late"))
    # Nothing else is looked at again.
    before = dict(running.operator.cluster.workloads)
    await load(running.operator.cluster, running.operator.controller, running.operator.kube)
    assert running.operator.cluster.workloads == before


@pytest.mark.parametrize(
    ("inject", "change", "reason"),
    [
        ("enabled", {"hostNetwork": True}, "HostNetwork"),
        ("missing", {}, "PolicyNotFound"),
        ("No Name", {}, "InvalidAnnotation"),
        ("enabled", {"containers": [{"name": "redis", "image": "redis:7"}]}, "NoVllmContainer"),
    ],
)
async def test_a_workload_that_cannot_be_served_is_told_why(
    api: FakeApi, start: Start, inject: str, change: Object, reason: str
) -> None:
    await api.add(POLICIES, make_policy())
    deployment = make_deployment(inject=inject)
    deployment["spec"]["template"]["spec"] |= change
    await api.add(DEPLOYMENTS, deployment)
    running = await start()
    await eventually(lambda: ("Deployment llama", reason) in [event[:2] for event in api.events()])
    await running.settled()
    assert bare(api)


async def test_what_somebody_else_owns_is_left_to_them(api: FakeApi, start: Start) -> None:
    owners = [
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "name": "llama",
            "controller": True,
        }
    ]
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment(ownerReferences=owners))
    running = await start()
    await eventually(
        lambda: [e for e in api.events() if e[1] == "OwnedWorkload" and "InferenceService llama" in e[2]]
    )
    await running.settled()
    assert bare(api)
    assert not api.writes("deployments")


def injected_pod(name: str, policy: Object, *, image: str = "running", ready: bool = True) -> Object:
    """A pod of the Deployment `llama` as it is after admission, with a status."""
    pod = make_pod()
    pod["metadata"] |= {
        "name": name,
        "namespace": "llm",
        "labels": {"pod-template-hash": "1"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "llama-1",
                "uid": "rs",
                "controller": True,
            }
        ],
    }
    from operator_kit import make_view

    pod = admit(pod, make_view([policy], native=False), "llm")
    state = (
        {"running": {}}
        if image == "running"
        else {"waiting": {"reason": image, "message": f"{image}: no such image"}}
    )
    pod["status"] = {
        "phase": "Running" if ready else "Pending",
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [
            {"name": names.SIDECAR, "image": "registry.example/trail-sidecar:0.1.0", "state": state}
        ],
    }
    return pod


async def test_the_status_counts_pods_and_says_what_is_wrong(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    await start(withdraw_after_s=3600.0)
    for name, image in (("a", "running"), ("b", "running"), ("c", "CrashLoopBackOff")):
        await api.add(PODS, injected_pod(name, make_policy(), image=image))
    old = make_policy(everySteps=3)
    await api.add(PODS, injected_pod("d", old, ready=False))
    await eventually(
        lambda: (
            api.stored(POLICIES, "llm", "default")["status"]["pods"]
            == {"injected": 4, "healthy": 2, "fallingBack": 1, "outdated": 1}
        )
    )
    assert condition(api, "Ready") == ("True", "Accepted")
    assert condition(api, "Progressing") == ("True", "RollingOut")
    assert condition(api, "Degraded") == ("True", "FallingBack")
    status = api.stored(POLICIES, "llm", "default")["status"]
    assert status["c"]["effective"] == 0.8
    assert status["workloads"] == [{"workload": "llm/deployment/llama", "pods": 4}]
    for name in "abcd":
        await api.remove(PODS, "llm", name)
    await eventually(lambda: api.stored(POLICIES, "llm", "default")["status"]["pods"]["injected"] == 0)
    await eventually(lambda: condition(api, "Degraded") == ("False", "AsExpected"))


async def test_an_image_that_cannot_be_pulled_is_taken_back_until_it_changes(
    api: FakeApi, start: Start
) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    running = await start()
    await eventually(lambda: stamped(api))
    await api.add(PODS, injected_pod("good", make_policy()))
    for name in ("stuck-1", "stuck-2"):
        await api.add(PODS, injected_pod(name, make_policy(), image="ImagePullBackOff", ready=False))
    await eventually(lambda: {name for name, _ in api.evicted} == {"stuck-1", "stuck-2"})
    assert api.evicted[0][1]["deleteOptions"]["preconditions"]["uid"].startswith("uid-")
    assert api.exists(PODS, "llm", "good")
    (withdrawn,) = api.stored(POLICIES, "llm", "default")["status"]["withdrawn"]
    assert withdrawn["workload"] == "llm/deployment/llama"
    assert withdrawn["reason"] == "ImagePullFailed"
    assert withdrawn["hash"] == injection_hash(parse_policy(make_policy()), SETTINGS)
    await running.settled()
    assert condition(api, "Degraded") == ("True", "Withdrawn")
    assert ("Deployment llama", "ImagePullFailed") in [event[:2] for event in api.events()]
    # The next pod of the workload comes up without TRAIL; its template is not touched for that.
    pod = injected_pod("next", make_policy())
    assert decide(pod, "llm", running.operator.cluster.view)[0].skip is not None
    assert stamped(api)
    # Another image is tried.
    await api.change(POLICIES, "llm", "default", {"spec": {"sidecar": {"image": "registry.example/other:1"}}})
    await eventually(lambda: "withdrawn" not in api.stored(POLICIES, "llm", "default")["status"])
    await eventually(lambda: decide(pod, "llm", running.operator.cluster.view)[0].kind == "injected")


async def test_a_stuck_pod_that_nobody_would_make_again_is_not_evicted(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    running = await start()
    pod = injected_pod("alone", make_policy(), image="ErrImagePull", ready=False)
    del pod["metadata"]["ownerReferences"]
    await api.add(PODS, pod)
    await eventually(lambda: [e for e in api.events() if e[0] == "Pod alone" and "delete the pod" in e[2]])
    await running.settled()
    assert not api.evicted
    assert "withdrawn" not in api.stored(POLICIES, "llm", "default")["status"]


async def test_a_skipped_pods_owner_is_told_once(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    running = await start()
    await running.settled()
    pod = make_pod(hostNetwork=True)
    pod["metadata"]["ownerReferences"] = [
        {"apiVersion": "example.org/v1", "kind": "Thing", "name": "t", "uid": "u", "controller": True}
    ]
    outcome = decide(pod, "llm", running.operator.cluster.view)[0]
    assert isinstance(outcome, Outcome)
    running.operator.controller.skipped(outcome)
    running.operator.controller.skipped(outcome)
    await running.operator.recorder.drained()
    assert [event[:2] for event in api.events()] == [("Thing t", "HostNetwork")]


async def test_cleaning_takes_every_stamp_out_and_the_webhook_first(api: FakeApi, start: Start) -> None:
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    await api.add(DEPLOYMENTS, make_deployment("plain", inject=None))
    running = await start()
    await eventually(lambda: stamped(api))
    await running.stop()
    kube = await Kube.connect()
    try:
        assert await remove_stamps(kube, "trail-operator") == 1
        assert await remove_stamps(kube, "trail-operator") == 0
    finally:
        await kube.close()
    assert bare(api)
    assert bare(api, "plain")
    order = [(r.method.value, r.url.path.rsplit("/", 1)[-1]) for r in api._requests]
    assert order.index(("DELETE", "trail-operator")) < len(order) - 1


async def test_the_client_names_what_was_refused(api: FakeApi) -> None:
    kube = await Kube.connect()
    try:
        with pytest.raises(KubeError, match="404") as error:
            await kube.get(path("apps/v1", "deployments", "llm", "nobody"))
        assert error.value.status == 404
        api.forbidden = {("GET", "pods", "")}
        with pytest.raises(KubeError, match="may not GET pods"):
            await kube.all(path("v1", "pods"), "a=b")
        assert await look_at_version(kube) is False
    finally:
        await kube.close()


async def test_without_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "KUBECONFIG" in os.environ
    with pytest.raises(ConnectionError, match="set KUBECONFIG"):
        await Kube.connect()


async def test_watches_that_end_begin_again_and_say_so_meanwhile(
    api: FakeApi, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's user has no name, a watch is refused for a while: what came meanwhile is found afterwards."""

    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr("getpass.getuser", no_name)
    await api.add(POLICIES, make_policy())
    running = await start()
    health = running.operator.health
    await eventually(lambda: health.ready()[0])
    up = running.operator.metrics.watches_up
    assert up._value.get() == 1

    api.forbidden = {("GET", "deployments", "")}
    api.break_watches()
    await eventually(lambda: up._value.get() == 0)
    await eventually(lambda: "403" in health.watches.describe() or "Forbidden" in health.watches.describe())
    assert health.alive()[0]
    await api.add(DEPLOYMENTS, make_deployment())
    api.forbidden = set()
    await eventually(lambda: up._value.get() == 1)
    await eventually(lambda: names.STAMPED_HASH in template_annotations(api))
    assert health.ready()[0]


async def test_an_operator_that_may_watch_nothing_is_alive_and_not_ready(api: FakeApi, start: Start) -> None:
    api.forbidden = {("GET", "namespaces", "")}
    running = await start()
    await eventually(lambda: running.operator.health.cluster.describe().startswith("[-]"))
    assert not running.operator.health.ready()[0]
    assert running.operator.health.alive()[0]
    api.forbidden = set()
    await eventually(lambda: running.operator.health.ready()[0])


async def test_a_server_that_hangs_up_ends_nothing(api: FakeApi, start: Start) -> None:
    """Whatever it was asked: the operator asks again, and the webhook answers meanwhile."""
    running = await start()
    await eventually(lambda: running.operator.health.ready()[0])

    async def hang_up() -> None:
        raise ServerDisconnectedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.operator.kube._api, "call_api", lambda *_, **__: hang_up())
        with pytest.raises(ConnectionError):
            await running.operator.kube.get("/version")
        await running.operator._resync()
        await running.operator.elector.attempt()
        assert "ConnectionError: Server disconnected" in running.operator.health.lease.describe()
    await api.add(POLICIES, make_policy())
    await api.add(DEPLOYMENTS, make_deployment())
    await eventually(lambda: names.STAMPED_HASH in template_annotations(api))
