"""Switches TRAIL on and off for a workload by its annotation; the operator does the rest."""

from trail.commands.cluster.outlook import find_operator, foreign, look, of_workload
from trail.commands.cluster.progress import Goal
from trail.commands.cluster.session import EXIT_FAILED, Object, Session, Workload, fetch
from trail.commands.cluster.wait import wait
from trail_operator import names
from trail_operator.admission.pods import annotations
from trail_operator.policy.resource import TrailPolicy
from trail_operator.reconcile.decide import template_of

_NOT_WAITED = "not waited for: `trail status` shows what becomes of it"


async def enable(session: Session, workload: Workload, annotation: str, timeout_s: float | None) -> int:
    """Annotates `workload` with `annotation`, and waits until its pods run with TRAIL; not at all for None.

    1 where nothing would be injected. A withdrawal leaves the annotation as it is: the operator forgets the
    one of a workload that does not ask, and would not if it did.
    """
    present = await fetch(session, workload.path(session.namespace), str(workload))
    # Looked at first: an annotation that leads to nothing is still told before it is written.
    template = (present.get("spec") or {}).get("template") or {}
    namespaces = foreign(annotation, annotations(template).get(names.INJECT))
    sight = await look(session, await find_operator(session), namespaces, strict=False)
    outlook = of_workload(sight, _with(present, annotation), workload.kind)
    already = annotations(present).get(names.INJECT) == annotation
    done = "annotated already" if already else "annotated"
    if (item := outlook.withdrawal) is not None:
        how = done if already else "not annotated"
        print(f"{workload}: {how}; nothing would be injected (Withdrawn): {item.why}\n{item.advice}")
        return EXIT_FAILED
    await _annotate(session, workload, annotation)
    if outlook.refusal is not None and not sight.unsure(outlook):
        print(f"{workload}: {done}, but nothing is injected ({outlook.refusal.reason}):"
              f" {outlook.refusal.message}")  # fmt: skip
        return EXIT_FAILED
    if timeout_s is None:
        by = "which TrailPolicy applies cannot be seen with your rights"
        if isinstance(outlook.outcome, TrailPolicy) and not sight.unsure(outlook):
            by = f"TrailPolicy {outlook.outcome.key} applies"
        print(f"{workload}: {done}; {by}; {_NOT_WAITED}")
        return 0
    goal = Goal(workload, session.namespace, on=True, annotation=annotation, done=done, already=already)
    return await wait(session, goal, timeout_s)


async def disable(session: Session, workload: Workload, timeout_s: float | None) -> int:
    """Takes the annotation away, or says `disabled` where something else would switch TRAIL on.

    Waits until its pods run without TRAIL; not at all for None.
    """
    present = await fetch(session, workload.path(session.namespace), str(workload))
    template = (present.get("spec") or {}).get("template") or {}
    namespaces = foreign(annotations(template).get(names.INJECT))
    sight = await look(session, await find_operator(session), namespaces, strict=False)
    outlook = of_workload(sight, present, workload.kind)
    unasked = outlook.otherwise if isinstance(outlook.otherwise, TrailPolicy) else None
    hidden = unasked is None and sight.unsure_otherwise(outlook)
    annotation = "disabled" if unasked is not None or hidden else None
    already = annotations(present).get(names.INJECT) == annotation
    await _annotate(session, workload, annotation)
    done, left = "the annotation is removed", "the annotation stays removed"
    if annotation is not None:
        done, left = "annotated as disabled", "the annotation stays"
        why = (
            f"TrailPolicy {unasked.key} takes its pods unasked"
            if unasked is not None
            else ("a TrailPolicy that you may not see could take its pods unasked")
        )
        print(f"{workload}: {done}, since {why}")
        if names.INJECT in annotations(template_of(outlook.record)):
            print(f"note: its pod template asks by itself; take {names.INJECT} out there to be rid of it")
    elif already:
        done, left = "no annotation asks", "nothing was changed"
    if timeout_s is None:
        print(f"{workload}: {done}; {_NOT_WAITED}")
        return 0
    goal = Goal(workload, session.namespace, False, annotation, done, left, already)
    return await wait(session, goal, timeout_s)


def _with(obj: Object, annotation: str) -> Object:
    notes = {**annotations(obj), names.INJECT: annotation}
    return {**obj, "metadata": {**obj["metadata"], "annotations": notes}}


async def _annotate(session: Session, workload: Workload, annotation: str | None) -> None:
    where = workload.path(session.namespace)
    await session.kube.patch(where, {"metadata": {"annotations": {names.INJECT: annotation}}})
