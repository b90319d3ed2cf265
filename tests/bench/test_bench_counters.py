"""Numbers from vLLM's metrics page and from the sidecar's statistics are joined to the right run."""

import json
from pathlib import Path

import pytest

from trail.bench.predictions import errors_by_run, read_sidecar_stats
from trail.bench.prometheus import counter_delta, mean_times, parse_samples
from trail.bench.record import engine_counts
from trail.bench.server import Counters
from trail.serving.control import EngineState

PAGE = """# HELP vllm:num_preemptions_total Cumulative number of preemptions.
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="a b {c}"} 3.0
vllm:num_preemptions_total{engine="1",model_name="a b {c}"} 4.0
vllm:num_requests_running{engine="0"} 0
plain 2.5
broken{x="y"} many
endless NaN
"""


def test_samples_are_summed_over_engines_and_bad_lines_passed_over() -> None:
    samples = parse_samples(PAGE)
    assert samples == {"vllm:num_preemptions_total": 7.0, "vllm:num_requests_running": 0.0, "plain": 2.5}


def test_a_counter_that_is_not_there_is_unknown_and_not_zero() -> None:
    assert counter_delta({}, {"a": 3.0}, "a") == 3
    assert counter_delta({"a": 1.0}, {"a": 3.0}, "a") == 2
    assert counter_delta({}, {}, "a") is None


def test_times_that_vllm_takes_itself_are_means_over_the_requests_between_two_pages() -> None:
    name = "vllm:request_queue_time_seconds"
    before = parse_samples(f'{name}_sum{{engine="0"}} 4.0\n{name}_count{{engine="0"}} 10\n')
    after = parse_samples(f'{name}_sum{{engine="0"}} 10.0\n{name}_count{{engine="0"}} 13\n')
    times = mean_times(before, after)
    assert times["queue_s"] == pytest.approx(2.0)
    assert times["ttft_s"] is None, "not on the page"


def stock(preemptions: float) -> Counters:
    return Counters({"vllm:num_preemptions_total": preemptions}, None)


def test_stock_recomputation_is_zero_without_preemption_and_unknown_with() -> None:
    assert engine_counts(stock(5), stock(5)) == {"preemptions": 0, "recomputed_tokens": 0}
    assert engine_counts(stock(5), stock(9)) == {"preemptions": 4, "recomputed_tokens": None}


def test_trail_counts_are_differences_over_the_run() -> None:
    def state(k: int) -> EngineState:
        return EngineState(True, "", 0, 0, 0, 2 * k, k, 3 * k, 100 * k, 0, 50 * k, 10 * k, 0, 0)

    page = {"vllm:num_preemptions_total": 0.0}
    got = engine_counts(Counters(page, state(1)), Counters({"vllm:num_preemptions_total": 4.0}, state(3)))
    assert got["preemptions"] == 4
    assert (got["policy_preemptions"], got["recomputed_tokens"], got["steps"]) == (2, 200, 100)


def finished(run: str, index: int, length: int, **more: object) -> dict[str, object]:
    row = {
        "request_id": f"cmpl-{run}-{index}-0-0a1b2c3d",
        "output_tokens": length,
        "initial": 50.0,
        "initial_source": "prompt",
        "predictions": length - 1,
        "refined_mae": 10.0,
        "finish_reason": "stop",
    }
    return row | more


def test_errors_are_grouped_by_run_and_weighted_by_what_they_count() -> None:
    rows = [
        finished("r0-trail-c0.8", 0, 40),
        finished("r0-trail-c0.8", 1, 80, refined_mae=20.0),
        finished("r1-trail-c0.8", 0, 50),
        finished("r0-trail-c0.8", 2, 5, finish_reason="abort"),
        finished("r0-sjf", 0, 60, predictions=0, refined_mae=None),
        {"request_id": "somebody-else", "finish_reason": "stop"},
    ]
    got = errors_by_run(rows)
    assert set(got) == {"r0-trail-c0.8", "r1-trail-c0.8", "r0-sjf"}
    one = got["r0-trail-c0.8"]
    assert (one["requests"], one["predictions"]) == (2, 39 + 79)
    assert one["initial_mae_tokens"] == pytest.approx((10 + 30) / 2)
    assert one["refined_mae_tokens"] == pytest.approx((39 * 10 + 79 * 20) / 118)
    assert one["countdown_mae_tokens"] == pytest.approx((39 * 10 + 79 * 30) / 118)
    assert got["r0-sjf"]["initial_mae_tokens"] == 10
    assert got["r0-sjf"]["refined_mae_tokens"] is None


def test_requests_nothing_was_predicted_for_are_counted() -> None:
    got = errors_by_run([finished("r0-trail", 0, 10, initial=None, refined_mae=None)])["r0-trail"]
    assert got["without_initial"] == 1
    assert got["initial_mae_tokens"] is None


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_sidecar_that_was_killed_leaves_no_statistics(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "stats.json"
    if content is not None:
        file.write_text(content)
    assert read_sidecar_stats(file) is None
    file.write_text(json.dumps({"requests": []}))
    assert read_sidecar_stats(file) == {"requests": []}
