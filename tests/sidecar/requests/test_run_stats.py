"""Delays in microseconds and in steps, the reservoirs behind them, and the file they end in."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_kit import ending

from trail.policy.spec import PolicySpec
from trail.sidecar.history.timelines import Timelines
from trail.sidecar.requests.stats import DelayMeter, Reservoir, RunStats
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.sidecar.requests.tracker import RequestTracker, RunningMean
from trail.wire.changes import Change
from trail.wire.lifecycle import Finished, Started

ENDED = Moment(9, Change.ENDED, 7)


@given(st.lists(st.lists(st.integers(0, 1000), max_size=9), max_size=9), st.integers(1, 12))
def test_reservoir_keeps_the_last_values(batches: list[list[int]], size: int) -> None:
    reservoir = Reservoir(size)
    for batch in batches:
        reservoir.add(np.array(batch, dtype=np.float64))
    everything = [float(value) for batch in batches for value in batch]
    assert reservoir.count == len(everything)
    assert sorted(reservoir.values.tolist()) == sorted(everything[-size:])


def test_summary_states_percentiles() -> None:
    reservoir = Reservoir()
    assert reservoir.summary() == {"count": 0}
    reservoir.add(np.arange(101.0))
    assert reservoir.summary() == {"count": 101, "mean": 50.0, "p50": 50.0, "p99": 99.0, "max": 100.0}


def test_delay_in_steps_counts_what_was_exported_before_publication() -> None:
    meter = DelayMeter()
    no_steps = meter.read(np.array([1, 2]), np.array([1000, 2000]))
    assert no_steps.tolist() == []
    delays_us = meter.published(np.array([1, 2]), np.array([1000, 2000]), 4000)
    assert delays_us.tolist() == [3.0, 2.0]
    # Steps 3 and 4 were exported before 4000 ns, step 5 after.
    assert meter.read(np.array([3, 4, 5]), np.array([3000, 4000, 5000])).tolist() == [3, 2]
    meter.published(np.array([3, 4, 5]), np.array([3000, 4000, 5000]), 5500)
    assert meter.read(np.array([6]), np.array([6000])).tolist() == [2, 1, 0]


def test_file_is_json_without_nan_and_replaces_an_older_one(tmp_path: Path) -> None:
    stats = RunStats()
    timeline = RequestTimeline(0, 5, 2, "r1", prompt_tokens=3)
    stats.moment(timeline, ENDED)
    timeline.ending = ending(7, policy=PolicySpec("trail", 0.8), generation=4)
    stats.moment(timeline, ENDED)
    path = tmp_path / "stats.json"
    path.write_text("old")
    stats.write(path)
    written = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert written["requests"] == [
        {
            "engine": 0, "policy": "trail-c0.8", "generation": 4, "request_id": "r1", "prompt_tokens": 3,
            "output_tokens": 7, "initial": None, "initial_source": "none", "predictions": 0,
            "refined_mae": None, "preemptions": 0, "recomputed_tokens": 0, "finish_reason": "stop",
        }
    ]  # fmt: skip
    assert written["delay_us"] == {"count": 0}


def test_predictions_along_a_request_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    tracker = RequestTracker(4, 2, RunningMean(0.0))
    timelines = Timelines(0, tracker, lambda: 1)
    stats = RunStats(detailed=True)
    timelines.listeners.append(stats)
    timelines.start(Started(key=7, request_id="r1", slot=2, prompt_token_ids=(1, 2), max_tokens=50))
    for age, remaining in ((0, 30.0), (10, 24.0), (20, 90.0)):
        tracker.set_remaining(np.array([2]), np.array([age]), np.ones((1, 2)), np.array([remaining]))
    timelines.end(Finished(key=7, slot=2, output_tokens=25), PolicySpec(), 1)
    stats.write(tmp_path / "stats.json")
    (request,) = json.loads((tmp_path / "stats.json").read_text())["requests"]
    assert request["refined_mae"] == pytest.approx((5 + 9 + 25) / 3)
    # The last one is bounded by max_tokens.
    assert request["predicted"] == [[0, 10, 20], [30.0, 34.0, 50.0]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["stats.json"]
