"""results.json: the promised shape, failures counted, written whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from results_maker import ARMS, make_results, make_run, simulate

from trail.bench.record import compare_outputs, timeline
from trail.bench.results import ResultsError, assemble, read_results
from trail.wire.files import write_json


def test_every_arm_has_the_promised_statistics() -> None:
    results = json.loads(json.dumps(make_results(), allow_nan=False))
    assert list(results["arms"]) == list(ARMS)
    for arm in results["arms"].values():
        for quantity in ("latency_s", "ttft_s"):
            for statistic in ("mean", "p50", "p95", "p99"):
                assert arm[quantity][statistic] > 0
                low, high = arm[quantity]["ci95"][statistic]
                assert low <= arm[quantity][statistic] <= high


def test_statistics_are_means_over_repeats_of_the_requests_own() -> None:
    results = make_results(("fcfs",), repeats=2)
    want = [np.mean([o.latency_s for o in simulate(0.0, r)]) for r in range(2)]
    assert results["arms"]["fcfs"]["latency_s"]["mean"] == pytest.approx(np.mean(want))


def test_speedup_is_stock_over_arm_within_each_repeat() -> None:
    results = make_results(("fcfs", "trail-c0"))
    arms = results["arms"]
    assert arms["fcfs"]["speedup"] is None
    ratios = [
        a["latency_s"]["mean"] / b["latency_s"]["mean"]
        for a, b in zip(arms["fcfs"]["runs"], arms["trail-c0"]["runs"], strict=True)
    ]
    want = np.exp(np.mean(np.log(ratios)))
    assert arms["trail-c0"]["speedup"]["latency_s"]["mean"] == pytest.approx(want)
    assert want > 1.2, "serving short requests first must show"


def test_one_repeat_has_values_and_no_intervals() -> None:
    arm = make_results(("fcfs", "sjf"), repeats=1)["arms"]["sjf"]
    assert arm["latency_s"]["ci95"]["mean"] is None
    assert arm["speedup"]["ttft_s"]["ci95"]["p99"] is None


def test_broken_and_different_answers_are_counted_and_named() -> None:
    results = make_results(("fcfs", "sjf"), spoil=True)
    arm = results["arms"]["sjf"]
    assert (arm["outcomes"]["sent"], arm["outcomes"]["completed"], arm["outcomes"]["cut"]) == (450, 449, 1)
    assert arm["outputs"]["different"] == 1
    assert arm["outputs"]["compared"] == 449
    assert arm["outputs"]["share_identical"] == pytest.approx(448 / 449)
    assert any("gone" in reason for reason in arm["outcomes"]["reasons"])
    assert any("did not complete" in n for n in results["notes"])
    assert any("differ from" in n for n in results["notes"])


def test_token_totals_of_different_answers_are_compared() -> None:
    whole = simulate(0.0, 0)
    short = [o.__class__(**{**o.__dict__, "output_tokens": 1, "digest": "x"}) for o in whole]
    got = compare_outputs(make_run("sjf", 0, 1, short), make_run("fcfs", 0, 0, whole))
    assert got is not None
    assert (got["tokens"], got["identical"]) == (150, 0)
    assert got["reference_tokens"] == sum(o.output_tokens for o in whole)


def test_the_timeline_holds_every_token_and_counts_who_waits() -> None:
    outcomes = simulate(0.0, 0)
    line = timeline(outcomes)
    assert sum(line["tokens_per_s"]) * line["bin_s"] == pytest.approx(
        sum(o.output_tokens for o in outcomes), rel=1e-3
    )
    for k in (3, 40, 79):
        at = (k + 0.5) * line["bin_s"]
        slow = sum(o.arrival_s <= at < o.arrival_s + (o.ttft_s or 0) for o in outcomes)
        assert line["waiting"][k] == slow


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    write_json(file, {"format": 1, "arms": {}})
    with pytest.raises(ValueError, match=r"NaN|Out of range"):
        write_json(file, {"format": 1, "arms": float("nan")})
    assert read_results(file) == {"format": 1, "arms": {}}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 99, "arms": {}}', '{"format": 1}'])
def test_files_that_are_no_results_are_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "results.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ResultsError, match=r"results\.json"):
        read_results(file)


def test_mixed_sources_of_initial_predictions_are_named() -> None:
    clean = make_results(("fcfs", "sjf"))
    assert not any("one source" in note for note in clean["notes"])
    records = [r for arm in clean["arms"].values() for r in arm["runs"]]
    records[-1]["prediction"]["initial_sources"] = {"prompt": 140, "probe": 10}
    mixed = assemble({"complete": True}, ("fcfs", "sjf"), records)
    assert any("10 probe, 440 prompt" in note for note in mixed["notes"])
