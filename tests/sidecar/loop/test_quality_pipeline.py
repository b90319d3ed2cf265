"""What follows from the quality of predictions on the board, and what a finished request hands over."""

import logging
from collections.abc import Callable

import numpy as np
import pytest
from service_kit import BINS, Bench, started, until, vector

from trail.policy.spec import PolicySpec
from trail.predict.online import Correction
from trail.predict.quality import EndedRequest, QualitySnapshot, Standing, Verdict
from trail.predict.rolling import Errors
from trail.sidecar.quality.feed import judged_of
from trail.sidecar.quality.monitor import AT_ONCE, Basis, Findings, QualityMonitor
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished

P = vector(0.1, 0.2, 0.3, 0.4)
MEAN = np.float32(0.1 * 8 + 0.2 * 24 + 0.3 * 40 + 0.4 * 56)

MakeBench = Callable[..., Bench]


class Judging:
    """In place of `predict.quality.Quality`: notes what it is given, finds what it is told."""

    def __init__(self) -> None:
        self.requests: list[EndedRequest] = []
        self.standing = Standing()
        self.correction = Correction()
        self.verdicts: list[Verdict] = []
        self.fails: Exception | None = None

    def take(self, requests: list[EndedRequest]) -> list[Verdict]:
        if self.fails is not None:
            raise self.fails
        self.requests += requests
        said, self.verdicts = self.verdicts, []
        return said

    def snapshot(self) -> QualitySnapshot:
        return QualitySnapshot(
            finished=len(self.requests), standing=self.standing, correction=self.correction
        )


@pytest.fixture
def judging() -> Judging:
    return Judging()


@pytest.fixture
def monitor(judging: Judging) -> QualityMonitor:
    return QualityMonitor(judging, has_prompt=True)  # type: ignore[arg-type]  # as much of it as is asked


@pytest.fixture
def bench(make_bench: MakeBench, monitor: QualityMonitor) -> Bench:
    return make_bench(quality=monitor)


def run_request(bench: Bench, key: int, slot: int, output: int, reason: str, *ages: int) -> None:
    bench.apply(started(key, slot, max_tokens=100))
    bench.pipeline.tracker.set_prompt_prediction(key, 33.0)
    for age in ages:
        bench.export((key, 5 + age, Kind.TOKEN if age else Kind.PROMPT, P))
        bench.pipeline.step()
    bench.apply(Finished(key=key, slot=slot, output_tokens=output, finish_reason=reason))


def test_an_end_hands_over_what_was_believed_along_the_way(
    bench: Bench, monitor: QualityMonitor, judging: Judging
) -> None:
    run_request(bench, 11, 3, 21, "stop", 0, 5, 9)
    run_request(bench, 12, 3, 30, "length", 0)
    monitor.look()
    one, cut = judging.requests
    assert (one.length, one.ended, one.limit, one.prompt_said) == (21, True, 100, 33.0)
    assert one.ages.tolist() == [0, 5, 9]
    assert one.posteriors.shape == (3, BINS.k)
    assert one.posteriors[0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert (cut.length, cut.ended, cut.ages.tolist()) == (30, False, [0])


def test_a_burst_is_judged_in_the_order_of_arrival(
    bench: Bench, monitor: QualityMonitor, judging: Judging
) -> None:
    lengths = {11: 90, 12: 30, 13: 10, 14: 20}
    bench.apply(*(started(key, key, max_tokens=100) for key in lengths))
    bench.export(*((key, 5, Kind.PROMPT, P) for key in lengths))
    bench.pipeline.step()
    for key in (13, 14, 12):  # the shortest end first
        bench.apply(Finished(key=key, slot=key, output_tokens=lengths[key], finish_reason="stop"))
        monitor.look()
        assert judging.requests == []
    bench.apply(Finished(key=11, slot=11, output_tokens=90, finish_reason="stop"))
    monitor.look()
    assert [one.length for one in judging.requests] == [90, 30, 10, 20]


@pytest.mark.parametrize("reason", ["abort", "", "error"])
def test_an_end_from_outside_says_nothing(
    bench: Bench, monitor: QualityMonitor, judging: Judging, reason: str
) -> None:
    run_request(bench, 11, 3, 21, reason, 0, 5)
    monitor.look()
    assert judging.requests == []


def test_requests_without_a_prediction_or_unknown_ones_say_nothing(
    bench: Bench, monitor: QualityMonitor, judging: Judging
) -> None:
    run_request(bench, 11, 3, 21, "stop", 0, 5)
    bench.apply(started(12, 3), Finished(key=12, slot=3, output_tokens=4, finish_reason="stop"))
    bench.apply(Finished(key=99, slot=9, output_tokens=4, finish_reason="stop"))
    monitor.look()
    assert [one.length for one in judging.requests] == [21]


def test_an_untrusted_probe_leaves_the_prompts_prediction_counted_down(
    bench: Bench, monitor: QualityMonitor
) -> None:
    bench.apply(started(11, 3), started(12, 4), started(13, 5))
    bench.pipeline.tracker.set_prompt_prediction(11, 50.0)
    bench.pipeline.tracker.set_prompt_prediction(13, 20.0)
    for key in (11, 12):  # 12 is known by the probe alone
        bench.export((key, 5, Kind.PROMPT, P), (key, 5 + 7, Kind.TOKEN, P))
    bench.pipeline.step()
    assert bench.board(3, 4, 5)["key"].tolist() == [11, 12, 13]
    probed = bench.board(3)[0]["remaining"]
    assert probed != 43
    monitor.findings = Findings(Standing(probe=False))
    bench.pipeline.step()
    rows = bench.board(3, 4, 5)
    assert rows["key"].tolist() == [11, 0, 13], "what only the probe spoke of ranks by the mean"
    assert (rows[0]["remaining"], rows[0]["rank"], rows[0]["age"]) == (43, 43, 7)
    assert rows[2]["rank"] == 20
    assert bench.header().order
    assert (bench.pipeline.basis, bench.pipeline.ordering) == (Basis.PROMPT, True)
    monitor.findings = Findings()
    bench.pipeline.step()
    assert bench.board(3, 4)["key"].tolist() == [11, 12]
    assert bench.board(3)[0]["remaining"] == probed


@pytest.mark.parametrize("name", ["trail", "adaptive", "trail-prompt", "sjf"])
def test_with_nothing_to_trust_the_engine_keeps_its_own_order(
    make_bench: MakeBench, monitor: QualityMonitor, name: str
) -> None:
    bench = make_bench(PolicySpec(name), quality=monitor)
    bench.pipeline.step()
    assert bench.header().order
    monitor.findings = Findings(Standing(probe=False, prompt=False))
    bench.pipeline.step()
    header = bench.header()
    assert (header.order, header.preempt, header.kv_reserve_tokens) == (False, False, -1.0)
    assert (bench.pipeline.basis, bench.pipeline.ordering) == (Basis.ARRIVAL, False)
    monitor.findings = Findings()
    bench.pipeline.step()
    assert bench.header().order


@pytest.mark.parametrize("name", ["oracle", "mlfq"])
def test_policies_that_do_not_predict_go_on(
    make_bench: MakeBench, monitor: QualityMonitor, name: str
) -> None:
    bench = make_bench(PolicySpec(name), quality=monitor)
    monitor.findings = Findings(Standing(probe=False, prompt=False))
    bench.pipeline.step()
    assert bench.header().order
    assert bench.pipeline.basis is Basis.PROBE


def test_without_a_prompt_predictor_the_way_down_is_arrival() -> None:
    monitor = QualityMonitor(None, has_prompt=False)
    assert monitor.basis(PolicySpec(), Standing(probe=False)) is Basis.ARRIVAL


def test_untrusted_prompts_are_noted_and_not_used(
    bench: Bench, monitor: QualityMonitor, judging: Judging
) -> None:
    monitor.findings = Findings(Standing(prompt=False))
    bench.pipeline.step()
    bench.apply(started(11, 3))
    bench.export((11, 5, Kind.PROMPT, P))
    bench.pipeline.step()
    assert not bench.pipeline.tracker.set_prompt_prediction(11, 500.0)
    bench.pipeline.step()
    assert bench.board(3)[0]["initial"] == MEAN
    bench.apply(Finished(key=11, slot=3, output_tokens=9, finish_reason="stop"))
    monitor.look()
    assert judging.requests[0].prompt_said == 500.0


def test_the_correction_stretches_the_next_predictions(bench: Bench, monitor: QualityMonitor) -> None:
    bench.apply(started(11, 3), started(12, 4, max_tokens=20))
    monitor.findings = Findings(correction=Correction(stretch=1.5))
    bench.export((11, 5, Kind.PROMPT, P), (12, 5, Kind.PROMPT, P))
    bench.pipeline.step()
    assert bench.board(3)[0]["remaining"] == pytest.approx(1.5 * MEAN)
    assert bench.board(4)[0]["remaining"] == 20, "never beyond the request's limit"


def test_the_correction_stretches_the_next_initial_predictions(
    bench: Bench, monitor: QualityMonitor, judging: Judging
) -> None:
    monitor.findings = Findings(correction=Correction(prompt_stretch=1.5))
    bench.pipeline.step()
    run_request(bench, 11, 3, 9, "stop", 0)
    bench.apply(started(12, 4))
    bench.pipeline.tracker.set_prompt_prediction(12, 33.0)
    bench.pipeline.step()
    assert bench.board(4)[0]["initial"] == 49.5
    monitor.look()
    assert judging.requests[0].prompt_said == 33.0, "judged by what it said itself"


def test_the_gittins_index_is_that_of_the_corrected_distribution(
    make_bench: MakeBench, monitor: QualityMonitor
) -> None:
    ranks = []
    for stretch in (1.0, 2.0):
        monitor.findings = Findings(correction=Correction(stretch=stretch))
        bench = make_bench(PolicySpec("trail", size="gittins"), quality=monitor)
        monitor.findings = Findings(correction=Correction(stretch=stretch))
        bench.apply(started(11, 3))
        bench.export((11, 5, Kind.PROMPT, P))
        bench.pipeline.step()
        ranks.append(bench.board(3)[0]["rank"])
    assert ranks[1] == pytest.approx(2 * ranks[0])


def test_watching_only_says_what_it_finds(judging: Judging) -> None:
    monitor = QualityMonitor(judging, has_prompt=True, acts=False)  # type: ignore[arg-type]
    judging.standing = Standing(probe=False)
    judging.correction = Correction(stretch=1.2)
    monitor.look()
    assert monitor.snapshot.standing == Standing(probe=False)
    assert monitor.findings == Findings()


def test_each_verdict_is_one_line(
    judging: Judging, monitor: QualityMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    errors = Errors(probe=80.0, prompt=20.0, constant=40.0)
    with caplog.at_level(logging.INFO, logger="trail.sidecar"):
        judging.standing = Standing(probe=False)
        judging.verdicts = [Verdict("probe", trusted=False, finished=140, errors=errors)]
        monitor.look()
        monitor.look()
        judging.standing = Standing()
        judging.verdicts = [Verdict("probe", trusted=True, finished=700, errors=errors)]
        monitor.look()
    off, on = (record.getMessage() for record in caplog.records)
    assert "after 140 requests the probe is worse than nothing" in off
    assert "ranked by their prompts" in off
    assert "probe 80.0, prompt 20.0, constant 40.0" in off
    assert "the probe is better again" in on


def test_an_error_in_judging_is_counted_and_changes_nothing(judging: Judging, bench: Bench) -> None:
    failures: list[int] = []
    monitor = QualityMonitor(
        judging,  # type: ignore[arg-type]
        on_failure=lambda: failures.append(1),
    )
    judging.fails = RuntimeError("no")
    monitor.start()
    bench.apply(started(11, 3))
    bench.export((11, 5, Kind.PROMPT, P))
    bench.pipeline.step()
    bench.apply(Finished(11, 3, 8))
    request = judged_of(bench.pipeline.timelines.ended[0])
    assert request is not None
    for _ in range(2):
        monitor.take([request])
        until(lambda: not monitor._requests and failures)
    judging.fails = None
    until(lambda: failures)
    monitor.take([request])
    until(lambda: judging.requests)
    assert monitor.findings == Findings()
    monitor.stop(5.0)


def test_the_end_of_a_burst_is_judged_in_parts(bench: Bench, judging: Judging) -> None:
    monitor = QualityMonitor(judging)  # type: ignore[arg-type]
    bench.apply(started(11, 3))
    bench.export((11, 5, Kind.PROMPT, P))
    bench.pipeline.step()
    bench.apply(Finished(11, 3, 8))
    request = judged_of(bench.pipeline.timelines.ended[0])
    assert request is not None
    monitor.take([request] * (2 * AT_ONCE + 1))
    looks = []
    for _ in range(3):
        monitor.look()
        looks.append(len(judging.requests))
    assert looks == [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1]
    monitor.take([request] * (2 * AT_ONCE))
    monitor.start()
    until(lambda: len(judging.requests) == 4 * AT_ONCE + 1)
    monitor.stop(5.0)


def test_a_request_ends_even_where_it_cannot_be_judged(
    bench: Bench, monitor: QualityMonitor, judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trail.sidecar.quality.feed.judged_of", lambda _: 1 / 0)
    run_request(bench, 11, 3, 21, "stop", 0, 5)
    monitor.look()
    assert judging.requests == []
    assert len(bench.pipeline.tracker) == 0
    assert bench.pipeline.timelines.listener_failures == 1
    assert [record["request_id"] for record in bench.telemetry.stats.records] == ["r11"]


def test_a_monitor_without_a_predictor_does_nothing(bench: Bench) -> None:
    monitor = QualityMonitor(None)
    monitor.start()
    run_request(bench, 11, 3, 21, "stop", 0, 5)
    monitor.take([one for timeline in bench.pipeline.timelines.ended if (one := judged_of(timeline))])
    assert not monitor._requests
    monitor.look()
    monitor.stop(1.0)
    assert monitor.snapshot == QualitySnapshot()
