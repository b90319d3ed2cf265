"""The plan of a step, where no single decision of `decide` says it all."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trail.policy.ranks import Terms
from trail.policy.spec import PolicySpec
from trail.policy.step import Plan, Ranked, Room, Running, Waiting, plan_step
from trail.wire.changes import Cause

TERMS = Terms.of(PolicySpec("trail", 1.0), mean_initial=10.0)
RANK = st.integers(0, 12).map(float)


def plan(
    running: list[tuple[float, bool]],
    waiting: list[float],
    *,
    free: int = 0,
    ready: list[bool] | None = None,
    starting: bool = True,
) -> Plan:
    rank, protected = (np.array([row[i] for row in running]) for i in range(2))
    protected = protected.astype(bool)
    effective = np.where(protected, -np.inf, rank).astype(float)
    n = len(waiting)
    return plan_step(
        Waiting(
            np.array(waiting),
            np.array(waiting),
            np.ones(n),
            np.ones(n, bool) if ready is None else np.array(ready),
            np.ones(n, bool),
        ),
        Running(
            Ranked(rank, rank, protected, np.zeros(len(running), bool), effective),
            np.arange(len(running)),
            np.ones(len(running)),
            np.ones(len(running), bool),
        ),
        Room(free, 1000.0, 2000.0, len(running)),
        TERMS,
        tight=False,
        stuck=False,
        starting=starting,
    )


@given(st.lists(st.tuples(RANK, st.booleans()), min_size=1, max_size=10), RANK)
def test_denied_by_protection_means_that_only_protection_stood_in_the_way(
    running: list[tuple[float, bool]], newcomer: float
) -> None:
    found = plan(running, [newcomer])
    shorter = [rank > newcomer and not protected for rank, protected in running]
    kept = [rank > newcomer and protected for rank, protected in running]
    assert len(found.swaps) == any(shorter)
    causes = [denial.cause for denial in found.denials]
    assert causes == ([Cause.PROTECTED] if any(kept) and not any(shorter) else [])


def test_whoever_is_not_ready_takes_no_slot_and_the_next_one_does() -> None:
    (swap,) = plan([(9.0, False)], [1.0, 2.0], ready=[False, True]).swaps
    assert swap == (0, 1, Cause.SLOT)
    assert not plan([(9.0, False)], [1.0], ready=[False]).swaps


def test_nobody_gives_way_in_a_step_that_starts_nobody() -> None:
    assert not plan([(9.0, False)], [1.0], starting=False).swaps
