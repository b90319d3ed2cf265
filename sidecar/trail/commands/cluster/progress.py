"""From what is seen of a workload to how far switching TRAIL on or off has come. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from trail.commands.cluster.outlook import Outlook, Sight, of_workload
from trail.commands.cluster.rollout import Rollout, obstacles, rollout
from trail.commands.cluster.session import Object, Workload
from trail_operator import names
from trail_operator.admission.inject import read_status
from trail_operator.admission.pods import annotations, workload_of
from trail_operator.admission.stamp import Stamp
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reconcile.blocked import shortened
from trail_operator.reconcile.status import condition

_MOST_PODS = 5
"""That are spoken about one by one."""


class Stage(Enum):
    """What is waited for."""

    STAMP = "the operator to change its pod template"
    ROLLOUT = "its pods to roll"
    PODS = "its pods to be seen"


class State(Enum):
    """Whether it is there."""

    WAITING = auto()
    DONE = auto()
    FAILED = auto()
    """It will not come about by waiting."""


@dataclass(frozen=True)
class Goal:
    """What was asked for, and what has been done for it."""

    workload: Workload
    namespace: str
    on: bool
    annotation: str | None
    """Its annotation."""
    done: str = "annotated"
    """What was done to the annotation."""
    left: str = "the annotation stays"
    """What becomes of that when nobody waits any more."""
    already: bool = False
    """Whether the annotation was so before."""

    @property
    def key(self) -> str:
        """As in statuses: `namespace/kind/name`."""
        return f"{self.namespace}/{self.workload}"


@dataclass(frozen=True)
class Seen:
    """What was read at one moment."""

    workload: Object | None
    """None: it is gone."""
    pods: Sequence[Object] | None
    """Of its selector; None: one may not list them."""
    sight: Sight


@dataclass(frozen=True)
class Progress:
    """How far it has come, in a sentence, with lines on single pods."""

    stage: Stage
    state: State
    sentence: str
    details: tuple[str, ...] = ()


def progress(goal: Goal, seen: Seen) -> Progress:
    """How far `goal` has come."""
    obj = seen.workload
    if obj is None:
        return Progress(Stage.STAMP, State.FAILED, "it is gone")
    outlook = of_workload(seen.sight, obj, goal.workload.kind)
    if (refusal := _refused(goal, seen.sight, outlook)) is not None:
        return Progress(Stage.STAMP, State.FAILED, refusal)
    if not _stamped(goal, seen.sight, outlook):
        return Progress(Stage.STAMP, State.WAITING, _waits_for_operator(goal, seen.sight, outlook))
    pods = None if seen.pods is None else [pod for pod in seen.pods if _lives(pod, goal)]
    rolled = rollout(obj, goal.workload.kind)
    return _rolling(goal, seen, outlook, rolled, pods) or _rolled(goal, outlook, rolled, pods)


def _rolling(
    goal: Goal, seen: Seen, outlook: Outlook, rolled: Rollout, pods: Sequence[Object] | None
) -> Progress | None:
    """What keeps pods from being what they should; None where all are as the cluster makes them."""
    present = _of_present_template(pods, outlook)
    bare = [line for pod in present if (line := _bare(pod))] if goal.on else []
    # Pods of a former template may carry the same stamp; these are being replaced.
    if bare and (rolled.done or len(present) == rolled.updated):
        sentence = f"{len(bare)} of {len(present)} new pods came up without TRAIL"
        return Progress(Stage.PODS, State.FAILED, sentence, _few(bare))
    if rolled.done:
        return None
    assert seen.workload is not None  # noqa: S101 - for the type checker
    parts = ("stamped" if goal.on else "without a stamp", rolled.sentence, obstacles(seen.workload, present))
    return Progress(Stage.ROLLOUT, State.WAITING, "; ".join(part for part in parts if part))


def _rolled(goal: Goal, outlook: Outlook, rolled: Rollout, pods: Sequence[Object] | None) -> Progress:
    """How it is where no more pods roll."""
    if pods is None:
        mark = "stamped" if goal.on else "without a stamp"
        sentence = f"{mark}, and its pods have rolled; you may not list them: what they carry is not known"
        return Progress(Stage.PODS, State.DONE, sentence)
    present = _of_present_template(pods, outlook)
    if len(present) < rolled.expected:
        sentence = f"its pods have rolled; {len(present)} of {rolled.expected} new ones are seen"
        return Progress(Stage.PODS, State.WAITING, sentence)
    return _on(outlook, rolled, pods, present) if goal.on else _off(rolled, pods)


def _of_present_template(pods: Sequence[Object] | None, outlook: Outlook) -> list[Object]:
    return [pod for pod in pods or () if Stamp.of(annotations(pod)) == outlook.record.stamp]


def overdue(goal: Goal, last: Progress | None, sight: Sight | None, waited_s: float, silence: str) -> str:
    """What to say where time is up; `silence` is what has been wrong with the connection since."""
    if last is None:
        return f"{goal.workload}: waited {waited_s:g} s; {silence}; {goal.left}"
    said = f"{goal.workload}: waited {waited_s:g} s for {last.stage.value}. Last seen: {last.sentence}."
    if silence:
        said += f" Since then {silence}."
    if last.stage is Stage.STAMP:
        missed = "stamped it" if goal.on else "taken its stamp out"
        said += f" The operator has not {missed}: is it running? {_where_to_look(sight)}."
    else:
        said += f" `kubectl -n {goal.namespace} rollout status {goal.workload}` goes on waiting."
    return f"{said} {goal.left[:1].upper()}{goal.left[1:]}"


def _refused(goal: Goal, sight: Sight, outlook: Outlook) -> str | None:
    if outlook.record.annotation != goal.annotation:
        now = "gone" if outlook.record.annotation is None else f"{outlook.record.annotation!r}"
        return f"its annotation {names.INJECT} is {now}, changed by somebody else: does a tool undo changes?"
    if not goal.on:
        return None
    if outlook.withdrawal is not None:
        return f"TRAIL is taken back from it ({outlook.withdrawal.why}); {outlook.withdrawal.advice}"
    if outlook.refusal is not None and not sight.unsure(outlook):
        return f"nothing is injected ({outlook.refusal.reason}): {outlook.refusal.message}"
    return None


def _stamped(goal: Goal, sight: Sight, outlook: Outlook) -> bool:
    stamp = outlook.record.stamp
    if not sight.unsure(outlook):
        return stamp == outlook.stamp
    # Which policy applies is not known: the operator's answer says so.
    return (
        (stamp.config_hash is not None and stamp.inject == goal.annotation)
        if goal.on
        else stamp.config_hash is None
    )


def _waits_for_operator(goal: Goal, sight: Sight, outlook: Outlook) -> str:
    operator, policy = sight.operator, outlook.outcome
    if isinstance(policy, TrailPolicy):
        record = sight.cluster.policies.get((policy.namespace, policy.name))
        degraded = condition(record.status if record is not None else {}, "Degraded")
        # The operator says whose stamp it could not write.
        if degraded.get("reason") == "OperatorFailed" and goal.key in str(degraded.get("message")):
            return f"{goal.done}; the operator fails: {shortened(str(degraded.get('message')))}"
    if not operator.visible:
        return f"{goal.done}; waiting for the operator, which you may not look at"
    if not operator.name:
        return f"{goal.done}; no operator is found in this cluster"
    name = f"the operator {operator.namespace}/{operator.name}"
    if not operator.ready:
        return f"{goal.done}; {name} is not ready (0 of {operator.wanted} replicas)"
    return f"{goal.done}; waiting for {name}"


def _where_to_look(sight: Sight | None) -> str:
    operator = sight.operator if sight is not None else None
    if operator is not None and operator.name:
        return f"See its log: kubectl -n {operator.namespace} logs deploy/{operator.name} -c operator"
    if operator is not None and operator.visible:
        return "None is found: helm install trail charts/trail -n trail-system"
    return "Ask whoever installed it for its log"


def _lives(pod: Object, goal: Goal) -> bool:
    metadata = pod["metadata"]
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    mine = workload_of(pod, goal.namespace) == goal.key
    return mine and not ended and not metadata.get("deletionTimestamp")


def _bare(pod: Object) -> str:
    """Why a pod of the present template is without TRAIL; '' where it is not."""
    status, name = read_status(pod), pod["metadata"].get("name")
    if status is None:
        return f"{name}: the webhook was not asked; see `trail explain-injection {name}`"
    if status.get("injected") is True:
        return ""
    return f"{name}: {status.get('reason')}: {status.get('message')}"


def _on(outlook: Outlook, rolled: Rollout, pods: Sequence[Object], present: Sequence[Object]) -> Progress:
    policies = sorted({str((read_status(pod) or {}).get("policy")) for pod in present})
    if not policies and isinstance(outlook.outcome, TrailPolicy):
        policies = [outlook.outcome.key]
    by = f" by TrailPolicy {', '.join(policies)}" if policies else ""
    if rolled.note:
        sentence = f"stamped{by}: {len(present)} of {len(pods)} pods run with TRAIL; {rolled.note}"
    elif not rolled.expected:
        sentence = f"stamped{by}: it has no replicas; its pods get TRAIL when it has"
    else:
        sentence = f"TRAIL is on{by}: {len(present)} of {len(pods)} pods run with it"
    return Progress(Stage.PODS, State.DONE, sentence)


def _off(rolled: Rollout, pods: Sequence[Object]) -> Progress:
    carrying = {str(pod["metadata"].get("name")): read_status(pod) or {} for pod in pods}
    carrying = {name: status for name, status in carrying.items() if status.get("injected") is True}
    if rolled.note:
        sentence = (
            f"its stamp is out: {len(carrying)} of {len(pods)} pods still run with TRAIL; {rolled.note}"
        )
        return Progress(Stage.PODS, State.DONE, sentence)
    if carrying:
        lines = [_still(name, status) for name, status in sorted(carrying.items())]
        sentence = f"{len(carrying)} of {len(pods)} pods still run with TRAIL"
        return Progress(Stage.PODS, State.FAILED, sentence, _few(lines))
    if not rolled.expected:
        return Progress(Stage.PODS, State.DONE, "TRAIL is off; it has no replicas")
    return Progress(Stage.PODS, State.DONE, f"TRAIL is off: {len(pods)} of {len(pods)} pods run without it")


def _still(name: str, status: Mapping[str, object]) -> str:
    return f"{name}: with TRAIL by TrailPolicy {status.get('policy')} until it is made anew; delete it"


def _few(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - _MOST_PODS
    return (*lines[:_MOST_PODS], *([f"and {more} more"] if more > 0 else []))
