"""What frames do to the board: refinement, the initial prediction, and rows that must change nothing."""

import numpy as np
import pytest
from service_kit import BINS, Bench, rows, started, vector

from trail.predict.refine import Refiner
from trail.sidecar.loop.pending import HOLD_ROWS, PendingRows
from trail.sidecar.loop.prediction import PROBE_BATCH, PredictionCounters
from trail.sidecar.pacing import SHARED_CORES
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished

P0 = vector(0.1, 0.2, 0.3, 0.4)
P1 = vector(0.4, 0.3, 0.2, 0.1)
REFINER = Refiner(BINS)


def expected(*vectors_and_steps: tuple[np.ndarray, int]) -> float:
    """Remaining tokens after the filter has seen these answers, each `steps` tokens after the one before."""
    (first, _), *later = vectors_and_steps
    q = REFINER.start(first[None, : BINS.k])
    for answer, steps in later:
        q = REFINER.step(q, answer[None, : BINS.k] / answer.sum(), steps)
    return float(REFINER.tokens(q)[0])


def test_prompt_row_gives_initial_prediction_and_rank(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.export((11, 5, Kind.PROMPT, P0))
    assert bench.pipeline.step()
    row = bench.board(3)[0]
    assert row["key"] == 11
    assert row["initial"] == row["remaining"] == row["rank"] == np.float32(expected((P0, 0)))
    assert row["cutoff"] == int(0.8 * expected((P0, 0)))
    assert row["age"] == 0


def test_token_rows_refine_by_the_tokens_passed(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    bench.export((11, 5 + 4, Kind.TOKEN, P1))
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert row["age"] == 4
    assert row["remaining"] == pytest.approx(expected((P0, 0), (P1, 4)))
    assert row["initial"] == np.float32(expected((P0, 0))), "the initial prediction is fixed"


def test_one_read_takes_the_prompt_and_the_newest_token_only(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    for age, answer in ((1, P0), (2, P0), (3, P1)):
        bench.export((11, 5 + age, Kind.TOKEN, answer))
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    assert bench.board(3)[0]["remaining"] == pytest.approx(expected((P0, 0), (P1, 3)))
    assert bench.probe.batches == [2]
    assert bench.pipeline.counters.ignored == {"superseded": 2}


def test_recomputed_positions_change_nothing(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.export((11, 8, Kind.TOKEN, P1))
    bench.pipeline.step()
    before = bench.board(3)
    bench.export((11, 5, Kind.PROMPT, P0), (11, 7, Kind.TOKEN, P0), (11, 8, Kind.TOKEN, P0))
    bench.pipeline.step()
    assert np.array_equal(bench.board(3), before)
    assert bench.pipeline.counters.ignored["recomputed"] == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((11, 6, Kind.PROMPT, P0), "position"),
        ((11, 5, Kind.TOKEN, P0), "position"),
        ((11, 3, Kind.TOKEN, P0), "position"),
        ((11, 5 + 101, Kind.TOKEN, P0), "position"),
        ((11, 2**32 - 1, Kind.TOKEN, P0), "position"),
        ((11, 5, Kind.PROMPT, vector(np.nan, 1.0)), "not_finite"),
    ],
)
def test_impossible_rows_are_counted_and_ignored(bench: Bench, row: tuple, reason: str) -> None:
    bench.apply(started(11, slot=3, max_tokens=100))
    bench.export(row)
    bench.pipeline.step()
    assert bench.board(3)[0]["key"] == 0
    assert bench.pipeline.counters.ignored == {reason: 1}


def test_rows_of_another_layer_are_counted_and_ignored(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.export((11, 5, Kind.PROMPT, P0), layer=3)
    bench.pipeline.step()
    assert bench.pipeline.counters.ignored == {"layer": 1}
    assert bench.probe.batches == []


def test_frames_before_the_started_event_are_used_when_it_comes(bench: Bench) -> None:
    bench.export((11, 5, Kind.PROMPT, P0), (12, 5, Kind.PROMPT, P0))
    bench.export((11, 7, Kind.TOKEN, P1))
    bench.pipeline.step()
    assert bench.board(3)[0]["key"] == 0
    bench.apply(started(11, slot=3))
    bench.pipeline.step()
    assert bench.board(3)[0]["remaining"] == pytest.approx(expected((P0, 0), (P1, 2)))
    assert len(bench.pipeline.pending) == 1, "the other request's row still waits"


def test_rows_that_nobody_claims_are_given_up(bench: Bench) -> None:
    bench.export((12, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    bench.now_ns += int(SHARED_CORES.unclaimed_rows_s * 1e9) + 1
    bench.pipeline.step()
    assert len(bench.pipeline.pending) == 0
    assert bench.pipeline.pending.dropped == 1


def test_waiting_rows_are_bounded() -> None:
    pending = PendingRows(hold_ns=1)
    for batch in range(HOLD_ROWS):
        pending.hold(rows((batch + 1, 5, Kind.PROMPT, P0), (batch + 1, 6, Kind.TOKEN, P0)), 0)
    assert len(pending) == HOLD_ROWS
    assert pending.dropped == HOLD_ROWS
    assert pending.claim({1}) == [], "the oldest gave way"
    assert len(pending.claim({HOLD_ROWS})[0]) == 2


def test_prompt_prediction_replaces_the_probes_and_is_kept(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    assert bench.pipeline.tracker.set_prompt_prediction(11, 50.0)
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert row["initial"] == 50
    assert row["cutoff"] == 40
    assert row["remaining"] == np.float32(expected((P0, 0))), "what the probe saw stays the better estimate"
    assert not bench.pipeline.tracker.set_prompt_prediction(11, 10.0)


def test_request_without_hidden_states_counts_down_from_its_prompt(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    assert bench.pipeline.claim_prompts() == [(11, tuple(range(5)))]
    assert bench.pipeline.claim_prompts() == [], "once"
    bench.pipeline.tracker.set_prompt_prediction(11, 50.0)
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert (row["rank"], row["slope"], row["age"]) == (50, 1, 0)


def test_predictions_stay_below_the_requests_own_limit(bench: Bench) -> None:
    bench.apply(started(11, slot=3, max_tokens=10))
    bench.pipeline.tracker.set_prompt_prediction(11, 50.0)
    bench.export((11, 5 + 8, Kind.TOKEN, P0))
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert row["initial"] == 10
    assert row["remaining"] == 2


def test_resent_request_keeps_the_initial_prediction_it_brings(bench: Bench) -> None:
    bench.apply(started(11, slot=3, age=20, initial_prediction=44.0))
    assert bench.pipeline.claim_prompts() == []
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert (row["initial"], row["rank"], row["age"], row["slope"]) == (44, 44, 0, 1)
    bench.export((11, 5 + 19, Kind.TOKEN, P1))
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.export((11, 5 + 21, Kind.TOKEN, P1))
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert row["initial"] == 44
    assert row["remaining"] == pytest.approx(expected((P1, 0)))
    assert row["age"] == 21
    assert bench.pipeline.counters.ignored["recomputed"] == 2, "both lie before the age it was sent with"


def test_resent_request_without_prediction_gets_the_total_length(bench: Bench) -> None:
    bench.apply(started(11, slot=3, age=20))
    bench.export((11, 5 + 20, Kind.TOKEN, P1))
    bench.pipeline.step()
    assert bench.board(3)[0]["initial"] == pytest.approx(expected((P1, 0)) + 20)


def test_long_batches_beat_in_between(bench: Bench) -> None:
    predictor = bench.pipeline.predictor
    assert predictor is not None
    tracker = bench.pipeline.tracker
    bench.apply(*(started(key, slot=key - 1) for key in range(1, 17)))
    # Every (request, kind) counts once, so a batch beyond the limit needs a wider board than the bench's.
    beats: list[int] = []
    chosen = np.arange(PROBE_BATCH * 2 + 1)
    vectors = np.tile(P0, (len(chosen), 1))
    zeros = np.zeros(len(chosen), dtype=np.int64)
    answer = predictor._probe(vectors, chosen, zeros, zeros, lambda: beats.append(1))
    assert len(answer) == len(chosen)
    assert len(beats) == 2
    assert bench.probe.batches == [PROBE_BATCH, PROBE_BATCH, 1]
    assert len(tracker) == 16


def test_error_of_finished_request_is_recorded(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.pipeline.tracker.set_prompt_prediction(11, 50.0)
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    bench.export((11, 5 + 2, Kind.TOKEN, P1))
    bench.pipeline.step()
    first, second = expected((P0, 0)), expected((P0, 0), (P1, 2))
    bench.apply(Finished(key=11, slot=3, output_tokens=30, preemptions=2, recomputed_tokens=9))
    (record,) = bench.telemetry.stats.records
    assert record["initial"] == 50
    assert record["initial_source"] == "prompt"
    assert record["predictions"] == 2
    assert record["refined_mae"] == pytest.approx((abs(first - 30) + abs(second - 28)) / 2, rel=1e-6)
    assert (record["preemptions"], record["recomputed_tokens"], record["output_tokens"]) == (2, 9, 30)
    assert (record["policy"], record["generation"]) == ("trail-c0.8", 1)


def test_counters_name_their_reasons() -> None:
    counters = PredictionCounters()
    counters.ignore("layer", 2)
    counters.ignore("layer", 1)
    counters.ignore("position", 0)
    assert counters.ignored == {"layer": 3}
