"""How far a roll-out is, as `kubectl rollout status` judges it, and what pods wait for."""

from typing import Any

import pytest
from cluster_kit import make_deployment, make_pod, rolled
from hypothesis import given
from hypothesis import strategies as st

from trail.commands.cluster.rollout import obstacles, rollout

Object = dict[str, Any]


def stateful(replicas: int | None = 3, strategy: Object | None = None, **status: int) -> Object:
    spec: Object = {
        "updateStrategy": strategy or {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "metadata": {"name": "llama", "generation": 2},
        "spec": spec,
        "status": {"observedGeneration": 2, **status},
    }


def partition(number: int) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}


LLAMA = make_deployment()
UNSEEN = rolled(LLAMA)
UNSEEN["metadata"]["generation"] = 3
PAUSED = rolled(LLAMA, updated=0)
PAUSED["spec"]["paused"] = True
DONE: dict[str, tuple[Object, int]] = {
    "all": (rolled(LLAMA), 2),
    "no replicas": (rolled(LLAMA, replicas=0), 0),
    "stateful": (stateful(readyReplicas=3, updatedReplicas=3), 3),
    "stateful, no replicas": (stateful(0), 0),
    "stateful, one by default": (stateful(None, readyReplicas=1, updatedReplicas=1), 1),
    "partition": (stateful(3, partition(2), readyReplicas=3, updatedReplicas=1), 1),
    "partition above all": (stateful(3, partition(5), readyReplicas=3), 0),
    "on delete": (stateful(3, {"type": "OnDelete"}, readyReplicas=3), 0),
}
NOT_YET: dict[str, tuple[Object, str]] = {
    "unseen": (UNSEEN, "has not looked at it"),
    "never seen": ({"metadata": {"generation": 1}}, "has not looked at it"),
    "some": (rolled(LLAMA, updated=1), "1 of 2 pods are updated"),
    "old ones": (rolled(LLAMA, every=3), "1 old ones have not ended"),
    "not available": (rolled(LLAMA, available=1), "2 of 2 pods are updated, 1 available"),
    "paused": (PAUSED, "kubectl rollout resume deployment/llama"),
    "stateful, not ready": (stateful(readyReplicas=2, updatedReplicas=1), "2 of 3 ready"),
    "stateful, some": (stateful(readyReplicas=3, updatedReplicas=1), "1 of 3 pods are updated"),
    "partition": (stateful(3, partition(1), readyReplicas=3, updatedReplicas=1), "1 of 2 pods are updated"),
}


def kind(name: str) -> str:
    return "StatefulSet" if name.startswith(("stateful", "partition", "on delete")) else "Deployment"


@pytest.mark.parametrize("name", DONE)
def test_a_rollout_is_done(name: str) -> None:
    obj, expected = DONE[name]
    found = rollout(obj, kind(name))
    assert found.done, found
    assert found.expected == expected
    assert bool(found.note) == (name in ("partition", "partition above all", "on delete"))


@pytest.mark.parametrize("name", NOT_YET)
def test_a_rollout_is_not_done_and_says_how_far_it_is(name: str) -> None:
    obj, sentence = NOT_YET[name]
    found = rollout(obj, kind(name))
    assert not found.done
    assert sentence in found.sentence


@given(*(st.integers(0, 4) for _ in range(4)), st.integers(0, 3))
def test_a_deployment_is_done_where_kubectl_says_so(
    wanted: int, updated: int, available: int, every: int, behind: int
) -> None:
    obj = rolled(LLAMA, replicas=wanted, updated=updated, available=available, every=every)
    obj["status"]["observedGeneration"] = 2 - behind
    done = behind == 0 and not (updated < wanted or every > updated or available < updated)
    assert rollout(obj, "Deployment").done == done


def pod(name: str = "x", *, engine: Object | None = None, phase: str = "Pending", **condition: str) -> Object:
    out = make_pod(LLAMA)
    out["metadata"]["name"] = name
    out["status"] = {"phase": phase, "conditions": [condition] if condition else [],
                     "initContainerStatuses": [{"name": "trail-engine", "state": engine or {}}],
                     "containerStatuses": [{"name": "main", "ready": False}]}  # fmt: skip
    return out


CREATING = {"waiting": {"reason": "PodInitializing"}}
PULLS = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
OBSTACLES: dict[str, tuple[Object, list[Object], tuple[str, ...]]] = {
    "nothing": (rolled(LLAMA), [], ()),
    "it starts": (rolled(LLAMA), [pod(engine=CREATING)], ()),
    "a pull": (rolled(LLAMA), [pod(engine=PULLS)],
               ("pod x, container trail-engine waits (ErrImagePull): no such image",)),
    "several": (rolled(LLAMA), [pod("y", engine=PULLS), pod("x", engine=PULLS)], ("pod x, ", "(and 1 more)")),
    "an end": (rolled(LLAMA), [pod(engine={"terminated": {"exitCode": 1, "reason": "Error"}})],
               ("container trail-engine has ended: Error, exit code 1",)),
    "no room": (rolled(LLAMA), [pod(type="PodScheduled", status="False", reason="Unschedulable",
                                    message="0/1 nodes are available: 1 Insufficient cpu.")],
                ("pod x is not scheduled (Unschedulable): 0/1 nodes are available: 1 Insufficient cpu.",)),
    "a model that loads": (rolled(LLAMA), [pod(phase="Running")], ("pod x is not ready yet (main)",)),
    "what has to be mended first": (rolled(LLAMA), [pod("a", phase="Running"), pod("b", engine=PULLS)],
                                    ("pod b, container",)),
    "quota": (rolled(LLAMA, conditions=[{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                                         "message": "exceeded quota: pods"}]), [],
              ("pods cannot be made (FailedCreate): exceeded quota: pods",)),
    "too late": (rolled(LLAMA, conditions=[{"type": "Progressing", "status": "False",
                                            "reason": "ProgressDeadlineExceeded"}]), [],
                 ("ProgressDeadlineExceeded",)),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_keeps_a_rollout_is_said(name: str) -> None:
    obj, pods, parts = OBSTACLES[name]
    found = obstacles(obj, pods)
    assert bool(found) == bool(parts)
    assert all(part in found for part in parts), found
