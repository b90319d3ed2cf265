"""A timeline from moment to moment, and what follows from it."""

import math

from trail.sidecar.requests.timeline import MOMENTS, Moment, RequestTimeline, State
from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import EngineSummary

S = 10**9


def timeline(**more: object) -> RequestTimeline:
    fields = {
        "arrival_s": 1000.0,
        "wall_offset_ns": 999 * S,
        "summary": EngineSummary(queued_ns=1 * S),
        **more,
    }
    return RequestTimeline(0, 5, 2, "r5", 10, waiting_since_ns=S, **fields)  # type: ignore[arg-type]  # as the test likes


def lived(*moments: Moment) -> RequestTimeline:
    one = timeline()
    for moment in moments:
        one.add(moment)
    return one


def test_waits_are_added_up_and_the_first_admission_stays() -> None:
    one = lived(
        Moment(1 * S, Change.ARRIVED, 0),
        Moment(3 * S, Change.ADMITTED, 0, rank=12.0),
        Moment(4 * S, Change.FIRST_TOKEN, 1),
        Moment(6 * S, Change.PREEMPTED, 9, Cause.SLOT, "short"),
        Moment(7 * S, Change.RESUMED, 9, rank=-math.inf),
        Moment(8 * S, Change.PREEMPTED, 12, Cause.KV_FULL),
    )
    assert one.state == State.WAITING
    assert (one.summary.waited_ns, one.summary.admitted_ns, one.age) == (3 * S, 3 * S, 12)
    assert (one.summary.policy_preemptions, one.summary.memory_preemptions, one.preemptions) == (1, 1, 2)
    assert one.admission_rank == 12.0
    one.add(Moment(12 * S, Change.RESUMED, 12))
    one.add(Moment(20 * S, Change.ENDED, 30))
    assert one.state == State.ENDED
    assert (one.queued_s, one.admission_s) == (7.0, 2.0)
    assert (one.first_token_s, one.total_s) == (3.0, 19.0)  # it arrived at 1000 s by the wall clock


def test_a_request_that_waits_has_no_times_yet() -> None:
    one = lived(Moment(1 * S, Change.ARRIVED, 0), Moment(2 * S, Change.PREDICTED, 0, Cause.PROMPT))
    assert one.state == State.WAITING
    assert all(math.isnan(value) for value in (one.admission_s, one.first_token_s, one.total_s))


def test_denials_are_kept_by_cause() -> None:
    one = lived(
        *(Moment(S, Change.DENIED, 0, cause) for cause in (Cause.RATIO, Cause.PROTECTED, Cause.RATIO))
    )
    assert one.summary.denied == (Cause.RATIO, Cause.PROTECTED)


def test_a_timeline_is_bounded_and_its_end_is_never_left_out() -> None:
    one = lived(Moment(S, Change.ARRIVED, 0))
    for i in range(200):
        one.add(Moment(i * S, Change.PREEMPTED, i, Cause.KV_FULL))
    one.add(Moment(300 * S, Change.ENDED, 300))
    assert len(one.moments) == MOMENTS + 1
    assert one.left_out == 201 - MOMENTS
    assert one.moments[-1].change == Change.ENDED
    assert (one.summary.memory_preemptions, one.age) == (200, 300)


def test_without_vllms_arrival_it_begins_in_the_queue() -> None:
    assert timeline(arrival_s=0.0).starts_ns == 1000 * S
