"""What one engine's timelines hold: of engines that report changes, of older ones, and of restarts."""

import math
from typing import Any

from service_kit import Bench, started, vector

from trail.policy.spec import PolicySpec
from trail.sidecar.history import timelines as module
from trail.sidecar.requests.timeline import Moment, RequestTimeline, State
from trail.wire.changes import Cause, Change
from trail.wire.frames import Kind
from trail.wire.lifecycle import Changed, Clocks, EngineSummary, Finished, Hello

S = 10**9
CLOCKS = Clocks(1 * S, 1_000_001 * S)


class Kept:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Change]] = []

    def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
        self.told.append((timeline.request_id, moment.change))


def changes(timeline: RequestTimeline) -> list[Change]:
    return [moment.change for moment in timeline.moments]


def only(bench: Bench) -> RequestTimeline:
    (timeline,) = bench.pipeline.timelines.open
    return timeline


def begin(bench: Bench, key: int, slot: int, queued_s: float = 1.0, **more: Any) -> None:
    bench.apply(CLOCKS, started(key, slot, summary=EngineSummary(queued_ns=int(queued_s * S)), **more))


def test_a_request_from_its_arrival_to_its_end(bench: Bench) -> None:
    kept = Kept()
    bench.pipeline.timelines.listeners.append(kept)
    bench.policy.set(PolicySpec("trail", 0.5))
    begin(bench, 5, 2, arrival_time_s=1_000_000.5, trace_headers={"traceparent": "x"}, priority=3)
    bench.pipeline.tracker.set_prompt_prediction(5, 20.0)
    bench.pipeline.step()
    bench.apply(Changed(5, Change.ADMITTED, 3 * S, 0, rank=20.0))
    bench.export((5, 5, Kind.PROMPT, vector(0, 1, 0, 0)))
    bench.apply(Changed(5, Change.FIRST_TOKEN, 4 * S, 1))
    bench.pipeline.step()
    timeline = only(bench)
    assert timeline.state == State.RUNNING
    assert (timeline.initial, timeline.initial_source, timeline.cutoff) == (20.0, Cause.PROMPT, 10)
    assert not timeline.protected
    bench.export((5, 5 + 11, Kind.TOKEN, vector(0, 1, 0, 0)))
    bench.pipeline.step()
    assert timeline.protected
    assert timeline.age == 11
    assert math.isnan(timeline.refined)  # it may change yet
    end = EngineSummary(S, 3 * S, 4 * S, 9 * S, 2 * S, 1, 0, 2, (Cause.RATIO,), 4)
    bench.apply(Finished(5, 2, 25, recomputed_tokens=6, summary=end))
    assert changes(timeline) == [
        Change.ARRIVED, Change.PREDICTED, Change.ADMITTED, Change.FIRST_TOKEN, Change.PROTECTED, Change.ENDED,
    ]  # fmt: skip
    assert kept.told == [("r5", change) for change in changes(timeline)]
    assert timeline.ended
    ending = timeline.ending
    assert ending is not None
    assert (ending.output_tokens, ending.recomputed_tokens, ending.predictions) == (25, 6, 2)
    assert (ending.policy.text, ending.generation) == ("trail-c0.5", 2)
    assert timeline.summary == end
    assert timeline.refined > 11
    assert (timeline.total_s, timeline.first_token_s, timeline.admission_s) == (8.5, 3.5, 2.0)
    assert timeline.trace_headers == {"traceparent": "x"}
    assert bench.pipeline.timelines.open == []
    assert list(bench.pipeline.timelines.ended) == [timeline]


def test_a_better_initial_prediction_is_another_moment(bench: Bench) -> None:
    begin(bench, 5, 2)
    bench.export((5, 5, Kind.PROMPT, vector(0, 1, 0, 0)))
    bench.pipeline.step()
    bench.pipeline.tracker.set_prompt_prediction(5, 60.0)
    bench.pipeline.step()
    predicted = [m.cause for m in only(bench).moments if m.change == Change.PREDICTED]
    assert predicted == [Cause.PROBE, Cause.PROMPT]
    assert only(bench).initial == 60.0


def test_who_gave_way_to_whom_and_what_was_refused(bench: Bench) -> None:
    for key in (5, 6):
        begin(bench, key, key)
    bench.apply(
        Changed(6, Change.DENIED, 2 * S, 0, Cause.PROTECTED, 5),
        Changed(6, Change.DENIED, 2 * S, 0, Cause.RATIO, 99),
        Changed(5, Change.PREEMPTED, 3 * S, 7, Cause.SLOT, 6),
        Changed(5, Change.PREEMPTED, 4 * S, 8, Cause.KV_FULL),
        Changed(77, Change.ADMITTED, 4 * S),
    )
    timelines = bench.pipeline.timelines
    first, second = timelines.open
    assert [(m.cause, m.other) for m in second.moments[1:]] == [(Cause.PROTECTED, "r5"), (Cause.RATIO, "")]
    assert first.moments[1].other == "r6"
    assert second.summary.granted == 1
    assert (timelines.policy_preemptions, timelines.memory_preemptions) == (1, 1)
    assert timelines.denied == {Cause.PROTECTED: 1, Cause.RATIO: 1}


def test_the_prediction_at_a_moment_is_counted_down_to_it(bench: Bench) -> None:
    begin(bench, 5, 2)
    bench.apply(Changed(5, Change.ADMITTED, 2 * S))
    bench.pipeline.tracker.set_prompt_prediction(5, 20.0)
    bench.apply(Changed(5, Change.PREEMPTED, 3 * S, 8, Cause.SLOT), Changed(5, Change.RESUMED, 4 * S, 50))
    remaining = [moment.remaining for moment in only(bench).moments]
    assert math.isnan(remaining[0])
    assert math.isnan(remaining[1])
    assert remaining[2:] == [12.0, 0.0]


def test_an_older_engine_reports_no_changes_and_running_shows_in_hidden_states(bench: Bench) -> None:
    bench.apply(started(5, 2))
    assert only(bench).state == State.WAITING
    bench.export((5, 5, Kind.PROMPT, vector(0, 1, 0, 0)))
    bench.pipeline.step()
    timeline = only(bench)
    assert timeline.state == State.RUNNING
    bench.apply(Finished(5, 2, 9))
    assert timeline.ended
    assert math.isnan(timeline.queued_s)
    assert math.isnan(timeline.first_token_s)


def test_a_sidecar_that_came_later_says_so(bench: Bench) -> None:
    summary = EngineSummary(
        queued_ns=S, admitted_ns=2 * S, first_token_ns=3 * S, running=True, policy_preemptions=2
    )
    bench.apply(CLOCKS, started(5, 2, age=7, initial_prediction=30.0, summary=summary))
    bench.apply(started(6, 3, summary=EngineSummary(queued_ns=2 * S)))
    bench.pipeline.step()
    first, second = bench.pipeline.timelines.open
    assert changes(first) == [Change.FOUND, Change.PREDICTED]
    assert (first.state, first.initial_source, first.preemptions) == (State.RUNNING, Cause.ENGINE, 2)
    assert changes(second) == [Change.ARRIVED]
    bench.apply(Hello(engine=0))
    assert bench.pipeline.timelines.open == []


def test_a_slot_taken_again_closes_the_request_whose_end_was_lost(bench: Bench) -> None:
    begin(bench, 5, 2)
    begin(bench, 6, 2)
    assert [timeline.request_id for timeline in bench.pipeline.timelines.open] == ["r6"]


def test_a_request_that_is_sent_again_with_another_slot_is_one(bench: Bench) -> None:
    begin(bench, 5, 2)
    begin(bench, 5, 3)
    begin(bench, 6, 2)
    assert [(one.request_id, one.slot) for one in bench.pipeline.timelines.open] == [("r5", 3), ("r6", 2)]


def test_protection_is_noted_once_and_only_where_the_policy_preempts(bench: Bench) -> None:
    bench.policy.set(PolicySpec("sjf"))
    begin(bench, 5, 2)
    bench.pipeline.tracker.set_prompt_prediction(5, 10.0)
    for age in (9, 10, 11):
        bench.export((5, 5 + age, Kind.TOKEN, vector(0, 1, 0, 0)))
        bench.pipeline.step()
    assert Change.PROTECTED not in changes(only(bench))
    bench.policy.set(PolicySpec("trail", 0.8))
    for age in (12, 13):
        bench.export((5, 5 + age, Kind.TOKEN, vector(0, 1, 0, 0)))
        bench.pipeline.step()
    assert changes(only(bench)).count(Change.PROTECTED) == 1


def test_ended_timelines_are_bounded_and_found_by_id_or_its_beginning(bench: Bench) -> None:
    for key in range(1, module.ENDED_KEPT + 20):
        bench.apply(started(key, 1), Finished(key, 1, 3))
    timelines = bench.pipeline.timelines
    assert len(timelines.ended) == module.ENDED_KEPT
    assert timelines.ended_total == module.ENDED_KEPT + 19
    assert timelines.find("x") == []
    assert [timeline.request_id for timeline in timelines.find("r101")] == [
        "r101"
    ]  # though r1010 begins like it
    assert len(timelines.find("r5")) == 10 + 100  # r5 itself is gone


def test_a_listener_that_fails_costs_a_counter(bench: Bench) -> None:
    class Failing:
        def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
            raise RuntimeError("no")

    kept = Kept()
    bench.pipeline.timelines.listeners += [Failing(), kept]
    begin(bench, 5, 2)
    assert len(bench.pipeline.timelines.open) == 1
    assert kept.told == [("r5", Change.ARRIVED)]
    assert bench.pipeline.timelines.listener_failures == 1
