"""What requests go through, as metrics."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_kit import S, Served, play

from trail.policy.spec import PolicySpec
from trail.sidecar.telemetry.passed_over import PassedOver
from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import EngineSummary, Finished


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.close()


def test_times_of_a_whole_answer(served: Served) -> None:
    """Queued at 1 s, waited 2 s in all, first token at 2.5 s, ended at 8.5 s with 31 tokens."""
    play(served)
    assert served.value("trail_queue_seconds_sum", engine="0", length="1-31") == 2.0
    assert served.value("trail_service_seconds_sum", engine="0") == 5.5
    assert served.value("trail_first_token_seconds_sum", engine="0") == 1.5
    assert served.value("trail_token_seconds_sum", engine="0") == pytest.approx(6.0 / 30)
    assert served.value("trail_request_seconds_sum", engine="0", reason="stop") == 7.5


def test_an_answer_that_was_broken_off_counts_as_a_request_alone(served: Served) -> None:
    play(served)
    assert served.value("trail_request_seconds_count", engine="0", reason="abort") == 1
    assert served.value("trail_service_seconds_count", engine="0") == 1
    assert served.value("trail_first_token_seconds_count", engine="0") == 1


def test_preemptions_and_refusals_by_cause(served: Served) -> None:
    play(served)
    assert served.value("trail_preemptions_total", engine="0", cause="kv_full") == 1
    assert served.value("trail_preemptions_denied_total", engine="0", cause="ratio") == 1
    served.change(3, Change.ADMITTED, 10.0)
    served.change(3, Change.PREEMPTED, 11.0, cause=Cause.SLOT)
    assert served.value("trail_preemptions_total", engine="0", cause="slot") == 1
    assert served.value("trail_preemptions_total", engine="0", cause="kv_full") == 1


def test_an_answer_of_one_token_has_no_time_a_token(served: Served) -> None:
    served.arrive(1, 1.0, 4.0)
    served.finish(1, 1, queued=1.0, admitted=1.0, first_token=2.0, ended=2.0)
    assert served.value("trail_first_token_seconds_count", engine="0") == 1
    assert not served.value("trail_token_seconds_count", engine="0")


def test_an_older_engine_tells_no_times(served: Served) -> None:
    served.arrive(1, 1.0, 4.0)
    served.apply(Finished(key=1, slot=1, output_tokens=4, summary=EngineSummary()))
    assert served.value("trail_finished_requests_total", engine="0", reason="stop") == 1
    assert not served.value("trail_queue_seconds_count", engine="0", length="1-31")
    assert not served.value("trail_service_seconds_count", engine="0")


def test_protected_requests_are_those_that_run(served: Served) -> None:
    served.policy.set(PolicySpec("trail", 0.5))
    served.arrive(1, 1.0, 20.0)
    served.change(1, Change.ADMITTED, 1.0)
    served.generate(1, age=0)
    assert served.value("trail_protected_requests", engine="0") == 0
    served.generate(1, age=12)
    assert served.value("trail_protected_requests", engine="0") == 1
    served.change(1, Change.PREEMPTED, 3.0, age=12, cause=Cause.KV_FULL)
    assert served.value("trail_protected_requests", engine="0") == 0


def guarded(served: Served) -> float:
    return served.value("trail_guard_admissions_total", engine="0") or 0.0


def test_a_longer_request_that_went_first_is_the_guards_doing(served: Served) -> None:
    served.arrive(1, 1.0, 60.0)
    served.arrive(2, 1.5, 8.0)
    served.change(1, Change.ADMITTED, 2.0)
    served.change(2, Change.ADMITTED, 3.0)
    assert guarded(served) == 1


@pytest.mark.parametrize(
    ("second_arrives_s", "second_admitted_s", "predicted", "why_not"),
    [
        (2.5, 3.0, 8.0, "it came after the long one had been admitted"),
        (1.5, 2.0, 8.0, "both were admitted in one step"),
        (1.5, 3.0, 63.0, "it is the longer one"),
    ],
)
def test_nobody_was_passed_over(
    served: Served, second_arrives_s: float, second_admitted_s: float, predicted: float, why_not: str
) -> None:
    served.arrive(1, 1.0, 60.0)
    served.arrive(2, second_arrives_s, predicted)
    served.change(1, Change.ADMITTED, 2.0)
    served.change(2, Change.ADMITTED, second_admitted_s)
    assert guarded(served) == 0, why_not


def test_without_boosted_arrivals_there_is_no_guard(served: Served) -> None:
    served.policy.set(PolicySpec("trail", 0.5))
    served.arrive(1, 1.0, 60.0)
    served.arrive(2, 1.5, 8.0)
    served.change(1, Change.ADMITTED, 2.0)
    served.change(2, Change.ADMITTED, 3.0)
    assert guarded(served) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(1, 9)), max_size=40))
def test_passed_over_as_looking_at_all_admissions_finds_it(steps: list[tuple[int, int, int]]) -> None:
    passed = PassedOver()
    admissions = sorted((queued + waited + 1, queued, float(work)) for queued, waited, work in steps)
    before: list[tuple[int, float]] = []
    for admitted, queued, work in admissions:
        expected = any(queued < at < admitted and other > work for at, other in before)
        assert passed.admitted(queued, admitted, work) is expected
        before.append((admitted, work))


def test_backlog_counts_what_is_still_to_come(served: Served) -> None:
    served.arrive(1, 1.0, 40.0)
    served.arrive(2, 1.0, 8.0)
    served.arrive(3, 1.0, 16.0)
    served.change(1, Change.ADMITTED, 2.0, age=0)
    assert served.value("trail_backlog_requests", engine="0", state="waiting") == 2
    assert served.value("trail_backlog_tokens", engine="0", state="waiting") == 24.0
    assert served.value("trail_backlog_tokens", engine="0", state="running") == 40.0
    served.change(1, Change.FIRST_TOKEN, 3.0, age=1)
    assert served.value("trail_backlog_tokens", engine="0", state="running") == 39.0
    assert served.value("trail_pod_backlog_tokens") == 63.0


def test_quality_shows_the_last_requests_beside_the_artefact(served: Served) -> None:
    play(served)
    assert served.value("trail_judged_requests_total", end="whole") == 1
    assert served.value("trail_predictor_error_artefact_tokens", predictor="probe") == 9.0
    error = served.value("trail_predictor_error_tokens", predictor="probe")
    assert error == served.monitor.snapshot.last.errors.probe
    assert served.value("trail_predictor_trusted", predictor="probe") == 1
    assert served.value("trail_basis", engine="0", basis="probe") == 1
    assert served.value("trail_basis", engine="0", basis="arrival") == 0


def test_a_heartbeat_gets_older(served: Served) -> None:
    served.arrive(1, 1.0, 4.0)
    age_s = served.value("trail_heartbeat_age_seconds", engine="0")
    assert age_s is not None
    served.now_ns -= 5 * S
    served.pipeline.step()
    later_s = served.value("trail_heartbeat_age_seconds", engine="0")
    assert later_s is not None
    assert later_s >= age_s + 4
