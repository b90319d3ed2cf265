"""Requests come, go, come back; engines do too; policies change. What the board and the records say then."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from service_kit import HIDDEN, Bench, started, vector

from trail.policy.spec import PolicySpec
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished, Hello, Load, StreamEnded

P0 = vector(0.1, 0.2, 0.3, 0.4)


def predicted(bench: Bench, key: int, slot: int, tokens: float, **more: object) -> None:
    bench.apply(started(key, slot, **more))
    bench.pipeline.tracker.set_prompt_prediction(key, tokens)


def test_unknown_request_has_an_empty_row(bench: Bench) -> None:
    bench.apply(started(11, slot=3))
    bench.pipeline.step()
    assert bench.board(3)[0]["key"] == 0


def test_finished_request_leaves_an_empty_row(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.pipeline.step()
    bench.apply(Finished(key=11, slot=3, output_tokens=4))
    bench.pipeline.step()
    assert bench.board(3)[0]["key"] == 0
    assert len(bench.pipeline.tracker) == 0


def test_reused_slot_holds_nothing_of_the_earlier_request(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    bench.apply(Finished(key=11, slot=3, output_tokens=4), started(12, slot=3))
    bench.pipeline.step()
    assert bench.board(3)[0]["key"] == 0
    bench.export((12, 6, Kind.TOKEN, P0), (11, 9, Kind.TOKEN, P0))
    bench.pipeline.step()
    row = bench.board(3)[0]
    assert row["key"] == 12
    assert row["remaining"] == np.float32(0.1 * 8 + 0.2 * 24 + 0.3 * 40 + 0.4 * 56), (
        "no posterior carried over"
    )
    (record,) = bench.telemetry.stats.records
    assert record["request_id"] == "r11"


def test_slot_given_away_without_an_end_closes_the_earlier_request(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.apply(started(12, slot=3))
    assert bench.pipeline.tracker.slots_of([11, 12]).tolist() == [-1, 3]
    assert bench.telemetry.stats.records == ()


def test_request_that_moves_to_another_slot_is_followed(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.apply(started(11, slot=4, age=2, initial_prediction=50.0))
    bench.pipeline.step()
    assert bench.board(3, 4)["key"].tolist() == [0, 11]


def test_the_same_start_twice_changes_nothing(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.pipeline.claim_prompts()
    bench.apply(started(11, slot=3))
    assert bench.pipeline.claim_prompts() == [], "no second prompt prediction is asked for"
    bench.pipeline.step()
    assert bench.board(3)[0]["initial"] == 50


@pytest.mark.parametrize("event", [started(11, slot=16), started(11, slot=2**31), started(0, slot=1)])
def test_request_that_no_row_can_hold_is_refused(bench: Bench, event: object) -> None:
    with pytest.raises(ValueError, match=r"slot|key 0"):
        bench.apply(event)
    assert len(bench.pipeline.tracker) == 0


def test_end_of_an_unknown_request_is_ignored(bench: Bench) -> None:
    bench.apply(Finished(key=99, slot=3, output_tokens=4))
    assert bench.telemetry.stats.records == ()


def test_policy_change_ranks_every_open_request_again(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    predicted(bench, 12, 4, 20.0, exact_output_tokens=60)
    bench.pipeline.step()
    assert bench.board(3, 4)["cutoff"].tolist() == [40, 16]
    bench.policy.set(PolicySpec("oracle", c=0.5, kv_reserve_tokens=128))
    bench.pipeline.step()
    assert bench.board(3, 4)["rank"].tolist() == [50, 60]
    assert bench.board(3, 4)["cutoff"].tolist() == [25, 30]
    header = bench.header()
    assert (header.generation, header.c, header.kv_reserve_tokens, header.order) == (2, 0.5, 128, True)
    bench.policy.set(PolicySpec("fcfs"))
    bench.pipeline.step()
    assert (bench.header().order, bench.header().preempt) == (False, False)


def test_mean_is_that_of_training_until_there_are_predictions(bench: Bench) -> None:
    bench.pipeline.step()
    assert bench.header().mean_initial == 30
    predicted(bench, 11, 3, 50.0)
    predicted(bench, 12, 4, 20.0)
    bench.pipeline.step()
    assert bench.header().mean_initial == 35
    bench.apply(Finished(key=11, slot=3, output_tokens=4))
    bench.pipeline.step()
    assert bench.header().mean_initial == 35, "a running mean over all requests, not over the open ones"


def test_hello_voids_what_was_open_and_keeps_the_rows_until_they_are_sent_again(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.pipeline.step()
    bench.pipeline.apply(Hello(engine=0, hidden_size=HIDDEN, layers=(2,)), 2)
    bench.pipeline.step()
    assert len(bench.pipeline.tracker) == 0
    assert bench.board(3)[0]["initial"] == 50, "the engine reads initial predictions from here to send them"
    bench.pipeline.apply(started(11, slot=3, age=9, initial_prediction=50.0), 2)
    bench.pipeline.step()
    assert bench.board(3)[0]["key"] == 11


def test_events_of_a_stream_that_was_replaced_are_ignored(bench: Bench) -> None:
    bench.pipeline.apply(Hello(engine=0), 2)
    bench.pipeline.apply(started(11, slot=3), 1)
    bench.pipeline.apply(StreamEnded(), 1)
    bench.now_ns += 10**12
    bench.pipeline.apply(started(12, slot=4), 2)
    bench.pipeline.step()
    assert bench.pipeline.tracker.slots_of([11, 12]).tolist() == [-1, 4]


def test_requests_outlast_their_stream_until_the_timeout(bench: Bench) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.apply(StreamEnded())
    bench.now_ns += 59 * 10**9
    bench.pipeline.step()
    assert len(bench.pipeline.tracker) == 1
    bench.now_ns += 2 * 10**9
    bench.pipeline.step()
    assert len(bench.pipeline.tracker) == 0


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [
        (Hello(0, hidden_size=4096, layers=(2,)), "exports hidden size 4096, the predictor reads 8"),
        (Hello(0, hidden_size=HIDDEN, layers=(1, 3)), "exports layer 1, 3, the predictor reads layer 2"),
    ],
)
def test_engine_of_another_model_is_named_and_left_alone(bench: Bench, hello: Hello, sentence: str) -> None:
    predicted(bench, 11, 3, 50.0)
    bench.pipeline.apply(hello, 2)
    bench.pipeline.apply(started(12, slot=4), 2)
    bench.export((12, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    assert bench.pipeline.problem is not None
    assert sentence in bench.pipeline.problem
    assert (bench.header().order, bench.header().preempt) == (False, False)
    assert bench.probe.batches == []
    assert bench.reader.fresh(10**9), "the sidecar lives, it only does not order"
    bench.pipeline.apply(Hello(0, hidden_size=HIDDEN, layers=(1, 2)), 3)
    bench.pipeline.step()
    assert bench.pipeline.problem is None
    assert bench.header().order


def test_model_length_bounds_requests_without_a_limit(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.pipeline.apply(Hello(0, max_model_len=45), 2)
    bench.pipeline.apply(started(11, slot=3, prompt_tokens=5), 2)
    bench.pipeline.tracker.set_prompt_prediction(11, 50.0)
    bench.pipeline.step()
    assert bench.board(3)[0]["initial"] == 40


def test_aborted_requests_count_but_not_as_prediction_errors(bench: Bench) -> None:
    for key, reason in ((11, "abort"), (12, "length")):
        predicted(bench, key, 3, 50.0)
        bench.apply(replace(Finished(key=key, slot=3, output_tokens=40), finish_reason=reason))
    samples = {
        sample.name: sample.value
        for family in bench.telemetry.metrics.registry.collect()
        for sample in family.samples
        if "initial_error" in sample.name
    }
    assert (samples["trail_initial_error_tokens_count"], samples["trail_initial_error_tokens_sum"]) == (1, 10)
    assert [r["finish_reason"] for r in bench.telemetry.stats.records] == ["abort", "length"]


def test_load_is_kept_as_last_reported(bench: Bench) -> None:
    bench.apply(Load(running=3), Load(running=4, preemptions_total=2))
    assert bench.pipeline.load == Load(running=4, preemptions_total=2)
