"""A benchmark served again by the simulator: here one that was simulated itself, so it comes out alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fidelity.__main__ import main, measured, parser
from benchmarks.fidelity.compare import compare, verdict
from benchmarks.fidelity.replay import (
    Recorded,
    ReplayError,
    engine_config,
    predictions_of,
    read_recorded,
    replay,
    workload,
)
from benchmarks.fidelity.report import render
from trail.bench.results import assemble
from trail.policy.spec import parse_policy
from trail.report.host import host
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Workload
from trail.simulation.run import run_record, simulate
from trail.wire.files import write_json

MODEL = StepModel("true", 2e-3, 5e-5, 4e-5, 2e-7)
CONFIG = EngineConfig(slots=8, token_budget=2048)
VLLM_ARGS = ("--max-num-seqs", "8", "--max-num-batched-tokens", "2048")
ARMS = ("fcfs", "sjf", "trail-c0.8")
EVERY = 10


def requests(seed: int, n: int = 200, rate_per_s: float = 20.0) -> Workload:
    rng = np.random.default_rng(seed)
    # Arrivals as results keep them, so that nothing is lost in rounding.
    arrivals = np.round(np.cumsum(rng.exponential(1 / rate_per_s, n)), 5)
    return Workload(arrivals, rng.integers(5, 100, n), rng.integers(2, 300, n))


def records_of(work: Workload, seed: int, name: str) -> list[dict[str, Any]]:
    """What a sidecar would have recorded: noisy lengths, every EVERY tokens."""
    rng = np.random.default_rng([seed, 1])
    out = []
    for i, length in enumerate(work.output_tokens.tolist()):
        ages = list(range(0, length, EVERY))
        out.append(
            {
                "request_id": f"cmpl-{name}-{i}-0-0a1b2c3d",
                "initial": float(length * rng.lognormal(0, 0.5)),
                "predicted": [ages, (length * rng.lognormal(0, 0.3, len(ages))).tolist()],
                "finish_reason": "stop",
            }
        )
    return out


def benchmark(directory: Path, rate_per_s: float, arms: tuple[str, ...] = ARMS, repeats: int = 2) -> None:
    """results.json and the sidecar's statistics in `directory`, from the simulator."""
    runs, kept = [], []
    for repeat in range(repeats):
        work = requests(repeat, rate_per_s=rate_per_s)
        for arm in arms:
            name = f"r{repeat}-{arm}"
            records = records_of(work, repeat, name)
            predictions = predictions_of(work, np.arange(len(work)), dict(enumerate(records)), name)
            served = simulate(CONFIG, MODEL, work, parse_policy(arm), predictions)
            runs.append(
                run_record(served, arm=arm, repeat=repeat, order=len(runs), predictions=None, keep=len(work))
            )
            kept += records if arm != "fcfs" else []
    meta = {
        "complete": True,
        "seed": 0,
        "config": {"model": "demo", "vllm_args": list(VLLM_ARGS), "requests": 200, "repeats": repeats},
        "load": {"text": "x", "rate_per_s": rate_per_s, "times_capacity": None},
        "host": host(),
        "servers": [{"name": "0-stock", "stock": True}, {"name": "1-trail", "stock": False}],
    }
    (directory / "logs").mkdir(parents=True)
    write_json(directory / "results.json", assemble(meta, list(arms), runs))
    write_json(directory / "logs" / "1-trail-sidecar.json", {"delay_steps": {"count": 0}, "requests": kept})


def options(out: Path, *more: str) -> list[str]:
    return ["--out", str(out), "--arms", ",".join(ARMS), *more]


@pytest.mark.parametrize("arm", ARMS)
def test_with_the_true_step_times_a_run_comes_out_as_it_was(arm: str, tmp_path: Path) -> None:
    benchmark(tmp_path, 30.0)
    results = json.loads((tmp_path / "results.json").read_text())
    recorded = read_recorded(results, tmp_path)
    for run in results["arms"][arm]["runs"]:
        served, work = replay(run, engine_config(VLLM_ARGS), MODEL, recorded)
        assert len(work) == 200
        assert served.latency_s.mean() == pytest.approx(run["latency_s"]["mean"])
        assert served.ttft_s.mean() == pytest.approx(run["ttft_s"]["mean"])


def test_the_whole_comparison_finds_a_simulated_server_faithful(tmp_path: Path) -> None:
    for load, rate in (("5", 5.0), ("30", 30.0)):
        benchmark(measured(parser().parse_args(options(tmp_path)), load), rate, repeats=3)
    assert main(options(tmp_path, "--loads", "5,30")) == 0
    document = json.loads((tmp_path / "fidelity.json").read_text())
    found = document["verdict"]
    assert found["compared"] == found["within_tolerance"] == 2 * 2 * len(ARMS)
    assert found["pairs"] == found["pairs_alike"] > 0
    page = (tmp_path / "fidelity.html").read_text()
    assert page == render(document)
    assert all(arm in page for arm in ARMS)


def test_a_server_that_is_slower_than_its_fit_is_found_out(tmp_path: Path) -> None:
    directory = measured(parser().parse_args(options(tmp_path)), "30")
    benchmark(directory, 30.0)
    path = directory / "results.json"
    results = json.loads(path.read_text())
    for run in results["arms"]["sjf"]["runs"]:
        run["latency_s"]["mean"] *= 1.3
    write_json(path, results)
    assert main(options(tmp_path, "--loads", "30")) == 1


def test_other_options_are_measured_anew(tmp_path: Path) -> None:
    found = {
        measured(parser().parse_args(options(tmp_path, *more)), "30") for more in ((), (), ("--seed", "1"))
    }
    assert len(found) == 2


def test_predictions_count_down_from_the_newest() -> None:
    work = Workload(np.zeros(2), np.array([4, 4]), np.array([6, 3]))
    records: dict[int, dict[str, Any]] = {
        5: {"initial": 9.0, "predicted": [[1, 4], [8.0, 5.0]]},
        2: {"initial": None, "predicted": [[], []]},
    }
    made = predictions_of(work, np.array([5, 2]), records, "r0-trail")
    assert isinstance(made, Predictions)
    assert made.initial.tolist() == [9.0, 9.0], "who was not predicted ranks by the mean"
    assert made.refined[:6].tolist() == [9.0, 7.0, 6.0, 5.0, 1.0, 0.0]
    assert made.refined[6:].tolist() == [9.0, 8.0, 7.0]


def test_who_did_not_complete_cannot_be_served_again() -> None:
    run = {
        "repeat": 0, "arm": "sjf",
        "requests": {"arrival_s": [0.0], "prompt_tokens": [3], "output_tokens": [0], "outcome": ["failed"]},
    }  # fmt: skip
    with pytest.raises(ReplayError, match="repeat 0 of sjf"):
        workload(run)


def test_who_was_not_recorded_is_named(tmp_path: Path) -> None:
    benchmark(tmp_path, 30.0)
    run = json.loads((tmp_path / "results.json").read_text())["arms"]["sjf"]["runs"][0]
    with pytest.raises(ReplayError, match=r"r0-sjf.*request 0"):
        replay(run, CONFIG, MODEL, Recorded({}, 0))


def test_statistics_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"1-trail-sidecar\.json is missing"):
        read_recorded({"servers": [{"name": "1-trail", "stock": False}]}, tmp_path)


def test_the_engine_is_the_one_that_was_started() -> None:
    config = engine_config([*VLLM_ARGS, "--num-gpu-blocks-override", "70", "--no-enable-prefix-caching"])
    assert (config.slots, config.token_budget, config.kv_blocks, config.prefix_cache) == (8, 2048, 70, False)
    with pytest.raises(ReplayError, match="--max-num-seqs"):
        engine_config([])


def test_what_is_within_and_who_ranks_alike() -> None:
    real = {"a": [1.0, 1.1, 0.9], "b": [2.0, 2.2, 1.9], "c": [4.0, 4.0, 4.0]}
    simulated = {"a": [1.3, 1.4, 1.35], "b": [3.0, 3.1, 2.9], "c": [2.5, 2.5, 2.5]}
    found = compare(real, simulated)
    assert [found["arms"][name]["within"] for name in real] == [False, False, False]
    assert {tuple(p["arms"]): p["alike"] for p in found["pairs"]} == {
        ("a", "b"): True, ("a", "c"): True, ("b", "c"): False,
    }  # fmt: skip
    near = compare({"a": [1.0, 1.2], "b": [1.0, 3.0]}, {"a": [1.15, 1.2], "b": [4.0, 4.0]})
    assert near["arms"]["a"]["within"], "within a tenth"
    assert near["arms"]["b"]["within"], "in the interval of two repeats that differ widely"
    assert not near["pairs"]
    counted = verdict([{"latency_s": found, "ttft_s": near}])
    assert counted == {
        "compared": 5, "within": 2, "within_tolerance": 1, "pairs": 3, "pairs_alike": 2,
    }  # fmt: skip
