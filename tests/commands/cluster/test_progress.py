"""From objects to how far switching TRAIL on or off has come."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cluster_kit import inject_pod, make_deployment, make_pod, pods_of, rolled, stamps
from hypothesis import given
from hypothesis import strategies as st
from operator_kit import make_policy

from trail.commands.cluster.outlook import Operator, Sight, sight_of
from trail.commands.cluster.progress import Goal, Progress, Seen, Stage, State, overdue, progress
from trail.commands.cluster.session import Workload

Object = dict[str, Any]

READY = Operator("trail-system", "trail-operator", 1, 1)
LLAMA = Workload("Deployment", "llama")
ON = Goal(LLAMA, "llm", True, "enabled")
OFF = Goal(LLAMA, "llm", False, None, "the annotation is removed", "the annotation stays removed")
POLICY = make_policy()
WITHDRAWN = {"workload": "llm/deployment/llama", "hash": "x", "reason": "ImagePullFailed",
             "message": "no such image", "since": "2026-01-01T00:00:00Z"}  # fmt: skip
ASKS = make_deployment(**{"trail.dev/inject": "enabled"})
QUIET = make_deployment()
STAMPED = rolled(ASKS, stamps())
BARE = rolled(QUIET)


def sight(
    *policies: Object, operator: Operator = READY, hidden: Sequence[str] = (), label: str | None = None
) -> Sight:
    found = replace(sight_of(policies, operator), hidden=frozenset(hidden))
    if label is not None:
        namespace = {"metadata": {"name": "llm", "labels": {"trail.dev/inject": label}}}
        found.cluster.observe_namespace(None, namespace)
    return found


def see(obj: Object | None, pods: list[Object] | None = None, found: Sight | None = None) -> Seen:
    return Seen(obj, pods, found or sight(POLICY))


def skipped(deployment: Object) -> Object:
    """A pod that the webhook has left as it is."""
    pod = make_pod(deployment)
    pod["spec"] = {**pod["spec"], "hostNetwork": True}
    return inject_pod(pod, POLICY)


def owned(deployment: Object) -> Object:
    owner = {"kind": "InferenceService", "name": "llama", "controller": True}
    return {**deployment, "metadata": {**deployment["metadata"], "ownerReferences": [owner]}}


def with_status(**status: Any) -> Object:
    return {**make_policy(), "status": status}


FAILS = {"type": "Degraded", "status": "True", "reason": "OperatorFailed",
         "message": "llm/deployment/llama cannot be changed: 403: no right"}  # fmt: skip
TAKEN_BACK = sight(with_status(withdrawn=[WITHDRAWN]))
ENDING = [{**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "now"}} for pod in pods_of(STAMPED)]
ALONE = rolled(ASKS, stamps(), replicas=1, updated=1)
FEW = rolled(ASKS, stamps(), updated=1, every=2)
# A pod that was injected without a stamp, as those that a selector takes are, stays what it is.
LEFT = inject_pod(make_pod(BARE), POLICY)
del LEFT["metadata"]["annotations"]["trail.dev/workload-inject"]

Case = tuple[Goal, Seen, Stage, State, tuple[str, ...]]
CASES: dict[str, Case] = {
    # ---- the stamp
    "gone": (ON, see(None), Stage.STAMP, State.FAILED, ("it is gone",)),
    "operator works": (ON, see(rolled(ASKS)), Stage.STAMP, State.WAITING,
                       ("annotated; waiting for the operator trail-system/trail-operator",)),
    "operator not ready": (ON, see(rolled(ASKS), found=sight(POLICY, operator=replace(READY, ready=0))),
                           Stage.STAMP, State.WAITING, ("trail-operator is not ready (0 of 1 replicas)",)),
    "no operator": (ON, see(rolled(ASKS), found=sight(POLICY, operator=Operator())),
                    Stage.STAMP, State.WAITING, ("no operator is found",)),
    "operator unseen": (ON, see(rolled(ASKS), found=sight(POLICY, operator=Operator(visible=False))),
                        Stage.STAMP, State.WAITING, ("which you may not look at",)),
    "operator may not": (ON, see(rolled(ASKS), found=sight(with_status(conditions=[FAILS]))),
                         Stage.STAMP, State.WAITING, ("the operator fails", "403: no right")),
    "former stamp": (ON, see(rolled(ASKS, stamps(make_policy(everySteps=9)))),
                     Stage.STAMP, State.WAITING, ("waiting for the operator",)),
    "undone": (ON, see(STAMPED | {"metadata": QUIET["metadata"]}), Stage.STAMP, State.FAILED, ("is gone",)),
    "changed": (ON, see(rolled(make_deployment(**{"trail.dev/inject": "disabled"}))),
                Stage.STAMP, State.FAILED, ("is 'disabled'",)),
    "policy gone": (ON, see(rolled(ASKS), found=sight()), Stage.STAMP, State.FAILED, ("NoPolicy",)),
    "policy unseen": (ON, see(rolled(ASKS), found=sight(hidden=["llm"])), Stage.STAMP, State.WAITING, ()),
    "default unseen": (ON, see(rolled(ASKS), found=sight(operator=Operator(visible=False))),
                       Stage.STAMP, State.WAITING, ()),
    "owned": (ON, see(owned(rolled(ASKS))), Stage.STAMP, State.FAILED,
              ("OwnedWorkload", "InferenceService llama")),
    "withdrawn": (ON, see(STAMPED, [], TAKEN_BACK), Stage.STAMP, State.FAILED,
                  ("ImagePullFailed: no such image, as of 2026-01-01T00:00:00Z", "change TrailPolicy")),
    # ---- the roll-out
    "rolling": (ON, see(rolled(ASKS, stamps(), updated=1), pods_of(ALONE, POLICY, 1)),
                Stage.ROLLOUT, State.WAITING, ("stamped; 1 of 2 pods are updated",)),
    "not seen by its controller": (ON, see(STAMPED | {"status": {}}, []), Stage.ROLLOUT, State.WAITING,
                                   ("has not looked at it yet",)),
    "rolling, pods unseen": (ON, see(rolled(ASKS, stamps(), updated=1)), Stage.ROLLOUT, State.WAITING,
                             ("1 of 2 pods",)),
    "a new pod is skipped": (ON, see(FEW, [skipped(STAMPED)]), Stage.PODS, State.FAILED,
                             ("1 of 1 new pods came up without TRAIL", "HostNetwork")),
    "a new pod missed the webhook": (ON, see(FEW, pods_of(STAMPED, None, 1)), Stage.PODS, State.FAILED,
                                     ("the webhook was not asked", "trail explain-injection llama-5f-x-0")),
    # `kubectl rollout restart` of what was stamped while the webhook was away.
    "bare pods are being replaced": (ON, see(FEW, [*pods_of(STAMPED, None, 1), *pods_of(STAMPED, POLICY, 1)]),
                                     Stage.ROLLOUT, State.WAITING, ()),
    # ---- the pods
    "on": (ON, see(STAMPED, pods_of(STAMPED, POLICY)), Stage.PODS, State.DONE,
           ("TRAIL is on by TrailPolicy llm/default: 2 of 2 pods run with it",)),
    "on, old ones end": (ON, see(STAMPED, [*pods_of(STAMPED, POLICY), *ENDING]), Stage.PODS, State.DONE,
                         ("2 of 2",)),
    "on, pods of others": (ON, see(STAMPED, [*pods_of(STAMPED, POLICY), make_pod(make_deployment("web"))]),
                           Stage.PODS, State.DONE, ("2 of 2",)),
    "no replicas": (ON, see(rolled(ASKS, stamps(), replicas=0), []), Stage.PODS, State.DONE,
                    ("no replicas",)),
    "pods unseen": (ON, see(STAMPED), Stage.PODS, State.DONE, ("you may not list them",)),
    "pods not listed yet": (ON, see(STAMPED, pods_of(STAMPED, POLICY, 1)), Stage.PODS, State.WAITING,
                            ("1 of 2 new ones are seen",)),
    "one is skipped": (ON, see(STAMPED, [*pods_of(STAMPED, POLICY, 1), skipped(STAMPED)]),
                       Stage.PODS, State.FAILED, ("1 of 2 new pods", "HostNetwork")),
    "policy unseen, operator stamps": (ON, see(STAMPED, pods_of(STAMPED, POLICY), sight(hidden=["llm"])),
                                       Stage.PODS, State.DONE, ("TrailPolicy llm/default",)),
    # ---- off
    "off, stamp still there": (OFF, see(rolled(QUIET, stamps())), Stage.STAMP, State.WAITING,
                               ("the annotation is removed; waiting for the operator",)),
    "off, rolling": (OFF, see(rolled(QUIET, updated=1)), Stage.ROLLOUT, State.WAITING, ("without a stamp",)),
    "off": (OFF, see(BARE, pods_of(BARE)), Stage.PODS, State.DONE, ("TRAIL is off: 2 of 2 pods",)),
    "off, no replicas": (OFF, see(rolled(QUIET, replicas=0), []), Stage.PODS, State.DONE, ("no replicas",)),
    "off, some still have it": (OFF, see(BARE, [*pods_of(BARE), LEFT]), Stage.PODS, State.FAILED,
                                ("1 of 3 pods still run with TRAIL", "until it is made anew")),
    "off, policy unseen": (OFF, see(BARE, pods_of(BARE), sight(hidden=["llm"])), Stage.PODS, State.DONE, ()),
    "off, policy unseen, stamp still there": (OFF, see(rolled(QUIET, stamps()), [], sight(hidden=["llm"])),
                                              Stage.STAMP, State.WAITING, ()),
    "off, in spite of a withdrawal": (OFF, see(BARE, pods_of(BARE), TAKEN_BACK),
                                      Stage.PODS, State.DONE, ()),
}  # fmt: skip


def words(found: Progress) -> str:
    return "\n".join((found.sentence, *found.details))


@pytest.mark.parametrize("name", CASES)
def test_progress(name: str) -> None:
    goal, seen, stage, state, parts = CASES[name]
    found = progress(goal, seen)
    assert (found.stage, found.state) == (stage, state), found
    assert all(part in words(found) for part in parts), found


def test_a_label_of_the_namespace_needs_the_word_disabled() -> None:
    """What `trail disable` waits for where others would switch TRAIL on."""
    goal = Goal(LLAMA, "llm", False, "disabled", "annotated as disabled")
    asks = make_deployment(**{"trail.dev/inject": "disabled"})
    found = sight(POLICY, label="enabled")
    waiting = progress(goal, see(rolled(asks, stamps()), [], found))
    assert (waiting.stage, waiting.state) == (Stage.STAMP, State.WAITING)
    off = rolled(asks, {"trail.dev/workload-inject": "disabled"})
    assert progress(goal, see(off, pods_of(off), found)).state is State.DONE


@pytest.mark.parametrize("on", [True, False])
def test_a_stateful_set_that_rolls_on_deletion_is_left_to_its_user(on: bool) -> None:
    obj = rolled({**(ASKS if on else QUIET), "kind": "StatefulSet"}, stamps() if on else {})
    obj["spec"]["updateStrategy"] = {"type": "OnDelete"}
    owner = {"kind": "StatefulSet", "name": "llama", "controller": True}
    before = pods_of(rolled(QUIET, {} if on else stamps()), None if on else POLICY)
    pods = [{**pod, "metadata": {**pod["metadata"], "ownerReferences": [owner]}} for pod in before]
    goal = replace(ON if on else OFF, workload=Workload("StatefulSet", "llama"))
    found = progress(goal, see(obj, pods))
    assert found.state is State.DONE
    assert ("0 of 2 pods run with TRAIL" if on else "2 of 2 pods still run with TRAIL") in found.sentence
    assert "when they are deleted" in found.sentence


def test_many_pods_are_not_all_spoken_about() -> None:
    obj = rolled(ASKS, stamps(), replicas=9)
    found = progress(ON, see(obj, pods_of(obj, None, 9)))
    assert found.state is State.FAILED
    assert found.details[-1] == "and 4 more"


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(0, 3))
def test_nothing_is_announced_that_was_not_seen(
    replicas: int, updated: int, available: int, stamped: bool, injected: int
) -> None:
    obj = rolled(ASKS, stamps() if stamped else None, replicas=replicas, updated=updated, available=available)
    found = progress(ON, see(obj, pods_of(obj, POLICY, injected)))
    if found.state is State.DONE:
        assert stamped
        assert updated >= replicas
        assert available >= updated
        assert injected >= replicas
    if "TRAIL is on" in found.sentence:
        assert found.state is State.DONE


UNINSTALLED, UNSEEN = Operator(), Operator(visible=False)
LATE = [
    (see(rolled(ASKS)), ("for the operator", "is it running?", "logs deploy/trail-operator")),
    (see(rolled(ASKS), found=sight(POLICY, operator=UNINSTALLED)), ("no operator is", "helm install")),
    (see(rolled(ASKS), found=sight(POLICY, operator=UNSEEN)), ("Ask whoever installed it",)),
    (see(rolled(ASKS, stamps(), updated=1), []), ("1 of 2 pods", "rollout status deployment/llama")),
]


@pytest.mark.parametrize(("seen", "parts"), LATE)
def test_what_is_late_names_what_was_waited_for_and_seen(seen: Seen, parts: tuple[str, ...]) -> None:
    text = overdue(ON, progress(ON, seen), seen.sight, 300.0, "")
    assert text.startswith("deployment/llama: waited 300 s for ")
    assert text.endswith("The annotation stays")
    assert all(part in text for part in parts), text


def test_a_stamp_that_is_left_is_named() -> None:
    seen = see(rolled(QUIET, stamps()))
    text = overdue(OFF, progress(OFF, seen), seen.sight, 300.0, "")
    assert "has not taken its stamp out: is it running?" in text
    assert text.endswith("The annotation stays removed")


def test_what_is_late_says_that_the_cluster_was_silent() -> None:
    seen = see(rolled(ASKS))
    assert "Since then nobody answers." in overdue(ON, progress(ON, seen), seen.sight, 9.0, "nobody answers")
    assert overdue(ON, None, None, 9.0, "nobody answers").endswith("nobody answers; the annotation stays")
