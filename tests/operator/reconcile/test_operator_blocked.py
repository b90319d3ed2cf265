"""What a withdrawal says: the cause, and not that the kubelet waits before it tries again."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_kit import DEFAULT, SETTINGS, admit, make_pod, make_policy, make_view

from trail_operator import names
from trail_operator.metrics import Metrics
from trail_operator.reasons import BlockReason
from trail_operator.reconcile.blocked import blocked, cause_of, shortened
from trail_operator.reconcile.cluster import Cluster
from trail_operator.reconcile.withdrawal import MOST_CAUSES, Withdrawals

Object = dict[str, Any]

NO_SHELL = (
    'failed to create containerd task: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown'
)
NO_IMAGE = 'rpc error: code = NotFound desc = failed to resolve reference "r/e:1": r/e:1: not found'
CRASHES = {"reason": "CrashLoopBackOff",
           "message": "back-off 40s restarting failed container=trail-engine pod=llama-0_llm(3)"}  # fmt: skip
PULLS = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "r/e:1"'}
START_ERROR = {"reason": "StartError", "exitCode": 128, "message": NO_SHELL}


def status(waiting: Object | None = None, ended: Object | None = None, last: Object | None = None) -> Object:
    """A container's status."""
    state = {"waiting": waiting} if waiting else {"terminated": ended} if ended else {"running": {}}
    return {
        "name": names.ENGINE,
        "image": "r/e:1",
        "state": state,
        "lastState": {"terminated": last} if last else {},
    }


CASES: list[tuple[str, Object, BlockReason | None, str, bool]] = [
    ("no shell, at first", status({"reason": "RunContainerError", "message": NO_SHELL}),
     BlockReason.CONTAINER_FAILED, NO_SHELL, True),
    ("no shell, later", status(CRASHES, last=START_ERROR),
     BlockReason.CONTAINER_FAILED, f"{NO_SHELL} (StartError, exit code 128)", True),
    ("no shell, between two tries", status(ended=START_ERROR),
     BlockReason.CONTAINER_FAILED, f"{NO_SHELL} (StartError, exit code 128)", True),
    ("out of memory", status(CRASHES, last={"reason": "OOMKilled", "exitCode": 137}),
     BlockReason.CONTAINER_FAILED, "OOMKilled, exit code 137", True),
    ("its own last words", status(CRASHES, last={"reason": "Error", "exitCode": 1, "message": "no\n room\n"}),
     BlockReason.CONTAINER_FAILED, "no room (Error, exit code 1)", True),
    ("nothing but a back-off", status(CRASHES), BlockReason.CONTAINER_FAILED, CRASHES["message"], False),
    ("a back-off without a word", status({"reason": "CrashLoopBackOff"}),
     BlockReason.CONTAINER_FAILED, "CrashLoopBackOff", False),
    ("a pull", status({"reason": "ErrImagePull", "message": NO_IMAGE}),
     BlockReason.IMAGE_PULL_FAILED, NO_IMAGE, True),
    ("a pull, backing off", status(PULLS), BlockReason.IMAGE_PULL_FAILED, PULLS["message"], False),
    ("a pull, backing off as since 1.31",
     status({"reason": "ImagePullBackOff", "message": f"{PULLS['message']}: ErrImagePull: {NO_IMAGE}"}),
     BlockReason.IMAGE_PULL_FAILED, f"{PULLS['message']}: ErrImagePull: {NO_IMAGE}", True),
    # A native sidecar that ran before its image went.
    ("a pull after a run", status(PULLS, last={"reason": "Error", "exitCode": 1, "message": "old"}),
     BlockReason.IMAGE_PULL_FAILED, PULLS["message"], False),
    ("a name that is none", status({"reason": "InvalidImageName"}),
     BlockReason.IMAGE_PULL_FAILED, "InvalidImageName", True),
    ("a signature", status({"reason": "SignatureValidationFailed", "message": "not signed"}),
     BlockReason.IMAGE_PULL_FAILED, "not signed", True),
    ("a user that is refused",
     status({"reason": "CreateContainerConfigError", "message": "container has runAsNonRoot"}),
     BlockReason.CONTAINER_FAILED, "container has runAsNonRoot", True),
    ("what cannot be made", status({"reason": "CreateContainerError", "message": "deadline exceeded"}),
     BlockReason.CONTAINER_FAILED, "deadline exceeded", True),
    ("what the node cannot give", status({"reason": "PreStartHookError", "message": "topology"}),
     BlockReason.CONTAINER_FAILED, "topology", True),
    ("a copy that is done", status(ended={"reason": "Completed", "exitCode": 0}), None, "", False),
    ("a container that is made", status({"reason": "ContainerCreating"}), None, "", False),
    ("a container that runs", status(last={"reason": "Error", "exitCode": 1}), None, "", False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_cause_is_told(case: tuple[str, Object, BlockReason | None, str, bool]) -> None:
    _, container, reason, cause, telling = case
    found = blocked({"status": {"initContainerStatuses": [container]}})
    if reason is None:
        assert found is None
        return
    assert found is not None
    assert found.reason == reason
    assert found.message == f"trail-engine (r/e:1): {cause}"
    assert (found.container, found.telling) == (names.ENGINE, telling)


def test_containers_of_others_and_ready_pods_are_left_in_peace() -> None:
    theirs = {**status(CRASHES), "name": "main"}
    assert blocked({"status": {"containerStatuses": [theirs]}}) is None
    ready = [{"type": "Ready", "status": "True"}]
    assert blocked({"status": {"conditions": ready, "initContainerStatuses": [status(CRASHES)]}}) is None


def test_a_volume_that_is_missing_is_told_by_the_scheduler() -> None:
    claim = {"name": names.VOLUME_PREDICTOR, "persistentVolumeClaim": {"claimName": "probe"}}
    message = '0/3 nodes are available: 3 persistentvolumeclaim "probe" not found.'
    scheduled = {"type": "PodScheduled", "status": "False", "message": message}
    found = blocked({"spec": {"volumes": [claim]}, "status": {"conditions": [scheduled]}})
    assert found is not None
    assert (found.reason, found.message, found.telling) == (BlockReason.VOLUME_MISSING, message, True)


@given(st.text(max_size=2000))
def test_a_long_cause_keeps_both_ends(text: str) -> None:
    out = shortened(text)
    assert len(out) <= 400
    assert out == text if len(text) <= 400 else (out[:200], out[-190:]) == (text[:200], text[-190:])


@given(
    st.dictionaries(st.sampled_from(["reason", "message"]), st.text(max_size=20)),
    st.dictionaries(st.sampled_from(["reason", "message"]), st.text(max_size=20)),
)
def test_a_cause_is_found_whatever_a_status_holds(waiting: Object, last: Object) -> None:
    said, telling = cause_of(status(waiting, last=last))
    assert "\n" not in said
    assert said or not telling


# ---- what is remembered ----------------------------------------------------------------------------


class Heard:
    """In the places of API and Events."""

    def __init__(self) -> None:
        self.written: list[Object] = []
        self.events: list[str] = []

    async def patch(self, _where: str, body: Object) -> Object:
        self.written = body["status"]["withdrawn"]
        return {}

    def record(self, _subject: Any, _reason: str, message: str, **_: Any) -> bool:
        self.events.append(message)
        return True


class World:
    """A cluster with a policy, one pod, and what withdraws."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.cluster = Cluster(SETTINGS, DEFAULT)
        self.cluster.observe_policy(None, make_policy())
        port: Any = self.heard
        metrics = Metrics()
        self.withdrawals = Withdrawals(self.cluster, port, port, metrics, after_s=60.0, clock=lambda: 0.0)

    def see(self, container: Object, *, name: str = "llama-0", uid: str = "a", owned: bool = True) -> None:
        """The watch tells of a pod of the StatefulSet `llama`."""
        pod = make_pod()
        owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llama", "uid": "s",
                 "controller": True}  # fmt: skip
        pod["metadata"] |= {"name": name, "namespace": "llm", "uid": uid,
                            "ownerReferences": [owner] if owned else []}  # fmt: skip
        pod = admit(pod, make_view([make_policy()]))
        pod["status"] = {"phase": "Pending", "initContainerStatuses": [container]}
        _, record = self.cluster.observe_pod("MODIFIED", pod)
        self.withdrawals.note(("llm", name), record)

    async def said(self, name: str = "llama-0") -> str:
        """What the withdrawal's message is."""
        assert await self.withdrawals.withdraw(("llm", name))
        (item,) = self.heard.written
        assert item["message"] in self.heard.events[-1]
        return str(item["message"])


async def test_why_a_pull_failed_outlives_the_back_off(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.see(status({"reason": "ErrImagePull", "message": NO_IMAGE}))
    world.see(status(PULLS))
    world.see(status({"reason": "ErrImagePull", "message": "pull QPS exceeded"}))
    world.see(status(PULLS))
    with caplog.at_level(logging.WARNING):
        assert await world.said() == f"trail-engine (r/e:1): {NO_IMAGE}"
    assert NO_IMAGE in caplog.text


async def test_a_start_that_failed_outlives_the_back_off() -> None:
    world = World()
    world.see(status({"reason": "RunContainerError", "message": NO_SHELL}))
    world.see(status(CRASHES))
    assert NO_SHELL in await world.said()


async def test_a_pull_that_came_through_is_no_cause_of_a_crash() -> None:
    world = World()
    world.see(status({"reason": "ErrImagePull", "message": NO_IMAGE}))
    world.see(status(CRASHES))
    assert NO_IMAGE not in await world.said()


@pytest.mark.parametrize("between", [{"uid": "b"}, {"container": status()}], ids=["another pod", "it runs"])
async def test_what_is_over_is_forgotten(between: Object) -> None:
    world = World()
    world.see(status({"reason": "ErrImagePull", "message": NO_IMAGE}))
    world.see(between.get("container", status(PULLS)), uid=between.get("uid", "a"))
    world.see(status(PULLS), uid=between.get("uid", "a"))
    assert NO_IMAGE not in await world.said()


async def test_a_pod_without_an_owner_hears_the_cause_as_well() -> None:
    world = World()
    world.see(status({"reason": "ErrImagePull", "message": NO_IMAGE}), owned=False)
    world.see(status(PULLS), owned=False)
    assert not await world.withdrawals.withdraw(("llm", "llama-0"))
    assert NO_IMAGE in world.heard.events[-1]


async def test_causes_of_a_crowd_take_bounded_room() -> None:
    world = World()
    for number in range(MOST_CAUSES + 5):
        world.see(status({"reason": "ErrImagePull", "message": NO_IMAGE}), name=f"p-{number}")
    assert len(world.withdrawals._causes) == MOST_CAUSES
    world.see(status(PULLS), name=f"p-{MOST_CAUSES}")
    assert NO_IMAGE in await world.said(f"p-{MOST_CAUSES}")
