"""Switches TRAIL on and off for a workload by its annotation; the operator does the rest."""

from trail.lab.cluster.outlook import Outlook, find_operator, foreign, look, of_workload
from trail.lab.cluster.session import EXIT_FAILED, Session, Workload, fetch
from trail_operator import names
from trail_operator.policy import TrailPolicy
from trail_operator.reasons import Skip


async def enable(session: Session, workload: Workload, wish: str) -> int:
    """Annotates `workload` with `wish`, and says what becomes of it. 1 where nothing would be injected."""
    where = workload.path(session.namespace)
    present = await fetch(session, where, str(workload))
    # Looked at first: a wish that leads to nothing is still told before it is written.
    operator = await find_operator(session)
    cluster = await look(session, operator, foreign(wish))
    notes = {**(present["metadata"].get("annotations") or {}), names.INJECT: wish}
    wished = {**present, "metadata": {**present["metadata"], "annotations": notes}}
    outlook = of_workload(cluster, wished, workload.kind)
    await session.kube.patch(where, {"metadata": {"annotations": {names.INJECT: wish}}})
    if isinstance(outlook.outcome, TrailPolicy):
        print(f"{workload}: TRAIL is on by TrailPolicy {outlook.outcome.key}; its pods roll")
        if outlook.record.owner:
            print(f"note: {outlook.record.owner} owns it and may undo this; annotate the pods there instead")
        return 0
    skip = outlook.outcome
    assert isinstance(skip, Skip)  # noqa: S101 - somebody has asked just now
    print(f"{workload}: annotated, but nothing is injected ({skip.reason}): {skip.message}")
    return EXIT_FAILED


async def disable(session: Session, workload: Workload) -> int:
    """Takes the annotation away, or says `disabled` where something else would switch TRAIL on."""
    where = workload.path(session.namespace)
    present = await fetch(session, where, str(workload))
    cluster = await look(session, await find_operator(session))
    outlook: Outlook = of_workload(cluster, present, workload.kind)
    by_others = isinstance(outlook.otherwise, TrailPolicy)
    wish = "disabled" if by_others else None
    await session.kube.patch(where, {"metadata": {"annotations": {names.INJECT: wish}}})
    if isinstance(outlook.otherwise, TrailPolicy):
        print(
            f"{workload}: TRAIL is off by the annotation disabled, since TrailPolicy {outlook.otherwise.key}"
            " takes its pods without being asked"
        )
        if _asks_by_itself(outlook):
            print(f"note: its pod template asks by itself; take {names.INJECT} out there to be rid of it")
    else:
        print(f"{workload}: the annotation is removed; its pods roll without TRAIL")
    return 0


def _asks_by_itself(outlook: Outlook) -> bool:
    from trail_operator.judge import template_of
    from trail_operator.pods import annotations

    return names.INJECT in annotations(template_of(outlook.record))
