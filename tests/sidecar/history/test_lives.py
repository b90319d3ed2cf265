"""What one engine's lives hold: of engines that report changes, of older ones, and of restarts."""

import math
from typing import Any

from service_kit import Bench, started, vector

from trail.policy.spec import PolicySpec
from trail.sidecar.history import timelines as lives_module
from trail.sidecar.requests.timeline import Life, Moment, State
from trail.wire.frames import Kind
from trail.wire.lifecycle import Cause, Change, Changed, Clocks, EngineSummary, Finished, Hello

S = 10**9
CLOCKS = Clocks(1 * S, 1_000_001 * S)


class Kept:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Change]] = []

    def moment(self, life: Life, moment: Moment) -> None:
        self.told.append((life.request_id, moment.change))


def changes(life: Life) -> list[Change]:
    return [moment.change for moment in life.moments]


def only(bench: Bench) -> Life:
    (life,) = bench.lane.lives.open
    return life


def begin(bench: Bench, key: int, slot: int, queued_s: float = 1.0, **more: Any) -> None:
    bench.apply(CLOCKS, started(key, slot, summary=EngineSummary(queued_ns=int(queued_s * S)), **more))


def test_a_request_from_its_arrival_to_its_end(bench: Bench) -> None:
    kept = Kept()
    bench.lane.lives.listeners.append(kept)
    bench.policy.set(PolicySpec("trail", 0.5))
    begin(bench, 5, 2, arrival_time_s=1_000_000.5, trace_headers={"traceparent": "x"}, priority=3)
    bench.lane.tracker.set_prompt_prediction(5, 20.0)
    bench.lane.step()
    bench.apply(Changed(5, Change.ADMITTED, 3 * S, 0, rank=20.0))
    bench.export((5, 5, Kind.PROMPT, vector(0, 1, 0, 0)))
    bench.apply(Changed(5, Change.FIRST_TOKEN, 4 * S, 1))
    bench.lane.step()
    life = only(bench)
    assert life.state == State.RUNNING
    assert (life.initial, life.initial_source, life.cutoff) == (20.0, Cause.PROMPT, 10)
    assert not life.protected
    bench.export((5, 5 + 11, Kind.TOKEN, vector(0, 1, 0, 0)))
    bench.lane.step()
    assert life.protected
    assert life.age == 11
    assert math.isnan(life.refined)  # it may change yet
    end = EngineSummary(S, 3 * S, 4 * S, 9 * S, 2 * S, 1, 0, 2, (Cause.RATIO,), 4)
    bench.apply(Finished(5, 2, 25, recomputed_tokens=6, summary=end))
    assert changes(life) == [
        Change.ARRIVED, Change.PREDICTED, Change.ADMITTED, Change.FIRST_TOKEN, Change.PROTECTED, Change.ENDED,
    ]  # fmt: skip
    assert kept.told == [("r5", change) for change in changes(life)]
    assert life.ended
    assert life.ending is not None
    assert (life.ending.output_tokens, life.ending.recomputed_tokens, life.ending.policy) == (
        25, 6, "trail-c0.5",
    )  # fmt: skip
    assert (life.ending.c, life.ending.generation) == (0.5, 2)
    assert life.summary == end
    assert life.refined > 11
    assert (life.total_s, life.first_token_s, life.admission_s) == (8.5, 3.5, 2.0)
    assert life.trace_headers == {"traceparent": "x"}
    assert bench.lane.lives.open == []
    assert list(bench.lane.lives.ended) == [life]


def test_a_better_initial_prediction_is_another_moment(bench: Bench) -> None:
    begin(bench, 5, 2)
    bench.export((5, 5, Kind.PROMPT, vector(0, 1, 0, 0)))
    bench.lane.step()
    bench.lane.tracker.set_prompt_prediction(5, 60.0)
    bench.lane.step()
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
    lives = bench.lane.lives
    first, second = lives.open
    assert [(m.cause, m.other) for m in second.moments[1:]] == [(Cause.PROTECTED, "r5"), (Cause.RATIO, "")]
    assert first.moments[1].other == "r6"
    assert second.summary.granted == 1
    assert (lives.policy_preemptions, lives.memory_preemptions) == (1, 1)
    assert lives.denied == {Cause.PROTECTED: 1, Cause.RATIO: 1}


def test_the_prediction_at_a_moment_is_counted_down_to_it(bench: Bench) -> None:
    begin(bench, 5, 2)
    bench.apply(Changed(5, Change.ADMITTED, 2 * S))
    bench.lane.tracker.set_prompt_prediction(5, 20.0)
    bench.apply(Changed(5, Change.PREEMPTED, 3 * S, 8, Cause.SLOT), Changed(5, Change.RESUMED, 4 * S, 50))
    remaining = [moment.remaining for moment in only(bench).moments]
    assert math.isnan(remaining[0])
    assert math.isnan(remaining[1])
    assert remaining[2:] == [12.0, 0.0]


def test_an_older_engine_reports_no_changes_and_running_shows_in_hidden_states(bench: Bench) -> None:
    bench.apply(started(5, 2))
    assert only(bench).state == State.WAITING
    bench.export((5, 5, Kind.PROMPT, vector(0, 1, 0, 0)))
    bench.lane.step()
    life = only(bench)
    assert life.state == State.RUNNING
    bench.apply(Finished(5, 2, 9))
    assert life.ended
    assert math.isnan(life.queued_s)
    assert math.isnan(life.first_token_s)


def test_a_sidecar_that_came_later_says_so(bench: Bench) -> None:
    summary = EngineSummary(
        queued_ns=S, admitted_ns=2 * S, first_token_ns=3 * S, running=True, policy_preemptions=2
    )
    bench.apply(CLOCKS, started(5, 2, age=7, initial_prediction=30.0, summary=summary))
    bench.apply(started(6, 3, summary=EngineSummary(queued_ns=2 * S)))
    bench.lane.step()
    first, second = bench.lane.lives.open
    assert changes(first) == [Change.FOUND, Change.PREDICTED]
    assert (first.state, first.initial_source, first.preemptions) == (State.RUNNING, Cause.ENGINE, 2)
    assert changes(second) == [Change.ARRIVED]
    bench.apply(Hello(engine=0))
    assert bench.lane.lives.open == []


def test_a_slot_taken_again_closes_the_life_whose_end_was_lost(bench: Bench) -> None:
    begin(bench, 5, 2)
    begin(bench, 6, 2)
    assert [life.request_id for life in bench.lane.lives.open] == ["r6"]


def test_protection_is_noted_once_and_only_where_the_policy_preempts(bench: Bench) -> None:
    bench.policy.set(PolicySpec("sjf"))
    begin(bench, 5, 2)
    bench.lane.tracker.set_prompt_prediction(5, 10.0)
    for age in (9, 10, 11):
        bench.export((5, 5 + age, Kind.TOKEN, vector(0, 1, 0, 0)))
        bench.lane.step()
    assert Change.PROTECTED not in changes(only(bench))
    bench.policy.set(PolicySpec("trail", 0.8))
    for age in (12, 13):
        bench.export((5, 5 + age, Kind.TOKEN, vector(0, 1, 0, 0)))
        bench.lane.step()
    assert changes(only(bench)).count(Change.PROTECTED) == 1


def test_ended_lives_are_bounded_and_found_by_id_or_its_beginning(bench: Bench) -> None:
    for key in range(1, lives_module.ENDED_KEPT + 20):
        bench.apply(started(key, 1), Finished(key, 1, 3))
    lives = bench.lane.lives
    assert len(lives.ended) == lives_module.ENDED_KEPT
    assert lives.ended_total == lives_module.ENDED_KEPT + 19
    assert lives.find("x") == []
    assert [life.request_id for life in lives.find("r101")] == ["r101"]  # though r1010 begins like it
    assert len(lives.find("r5")) == 10 + 100  # r5 itself is gone


def test_a_listener_that_fails_costs_a_counter(bench: Bench) -> None:
    class Failing:
        def moment(self, life: Life, moment: Moment) -> None:
            raise RuntimeError("no")

    kept = Kept()
    bench.lane.lives.listeners += [Failing(), kept]
    begin(bench, 5, 2)
    assert len(bench.lane.lives.open) == 1
    assert kept.told == [("r5", Change.ARRIVED)]
    assert bench.lane.lives.listener_failures == 1
