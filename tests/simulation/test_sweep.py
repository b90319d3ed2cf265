"""Runs, sweeps and `trail simulate` as a whole."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trail.bench.config import Arrivals, Load, parse_arms, parse_load
from trail.commands import simulate as command
from trail.policy.spec import PolicySpec
from trail.simulation.assemble import load_summary
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Lognormal
from trail.simulation.engine.steptime import PRESETS, StepModel
from trail.simulation.engine.workload import Pool, Source, Workload
from trail.simulation.run import measure_capacity, simulate
from trail.simulation.sweep import Setting, jobs, run_jobs

ENGINE = EngineConfig(slots=8, token_budget=512)
ARMS = parse_arms("fcfs,sjf,trail-c0.2,adaptive")


def setting(**change: Any) -> Setting:
    rng = np.random.default_rng(0)
    pool = Pool(rng.integers(10, 200, 500), rng.integers(2, 120, 500))
    given = Setting(
        source=Source("lengths", pool=pool),
        arrivals=Arrivals("poisson"),
        engine=ENGINE,
        model=PRESETS["h200-8b"],
        predictor=Lognormal(),
        every=10,
        requests=300,
        keep=50,
    )
    return replace(given, **change)


def test_capacity_is_what_a_full_engine_sustains() -> None:
    # 8 slots, 10 steps of 1 s a request (its first token comes with the prompt): 0.8 requests a second.
    work = Workload(np.zeros(400), np.full(400, 3), np.full(400, 10))
    capacity = measure_capacity(ENGINE, StepModel("1 s", 1.0, 0.0, 0.0, 0.0), work)
    assert capacity.requests_per_s == pytest.approx(0.8, rel=0.01)
    assert capacity.requests == 400
    few = Workload(np.zeros(4), np.full(4, 3), np.full(4, 10))
    with pytest.raises(ValueError, match="never saturated"):
        measure_capacity(ENGINE, StepModel("1 s", 1.0, 0.0, 0.0, 0.0), few)


def test_times_of_one_request() -> None:
    model = StepModel("1 s", 1.0, 0.0, 0.0, 0.0)
    served = simulate(
        ENGINE, model, Workload(np.array([2.5]), np.array([3]), np.array([4])), PolicySpec("fcfs")
    )
    assert served.ttft_s.tolist() == [1.0]
    assert served.latency_s.tolist() == [4.0]
    assert served.max_gap_s.tolist() == [1.0]
    assert served.span_s == pytest.approx(4.0)


def run_all(given: Setting, directory: Path, processes: int) -> list[dict[str, Any]]:
    todo = jobs(ARMS, [Load(rate_per_s=40.0), Load(rate_per_s=80.0)], [0, 1], None)
    found = sorted(
        run_jobs(given, todo, directory=directory, processes=processes), key=lambda item: item[0].order
    )
    return [{**record, "simulated": {**record["simulated"], "wall_s": 0}} for _, record in found]


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    one, two = (run_all(setting(), tmp_path / str(n), n) for n in (1, 2))
    assert len(one) == 16
    assert json.dumps(one) == json.dumps(two)


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = setting()
    todo = jobs(ARMS, [Load(rate_per_s=40.0)], [0, 1], None)
    running = run_jobs(given, todo, directory=tmp_path, processes=1)
    first = [next(running) for _ in range(3)]
    running.close()
    simulated: list[str] = []
    real = simulate
    monkeypatch.setattr("trail.simulation.sweep.simulate", lambda *a: simulated.append(a[3].name) or real(*a))
    rest = list(run_jobs(given, todo, directory=tmp_path, processes=1))
    assert len(rest) == len(todo)
    assert len(simulated) == len(todo) - 3
    assert [record for job, record in rest if job == first[0][0]] == [first[0][1]]
    first_of_all = {"arm": todo[0].arm.name, "repeat": 0}
    (damaged,) = (
        file for file in tmp_path.iterdir() if first_of_all.items() <= json.loads(file.read_text()).items()
    )
    simulated.clear()
    list(run_jobs(replace(given, every=5), todo, directory=tmp_path, processes=1))
    assert len(simulated) == len(todo), "another setting shares no run"
    damaged.write_text('{"half')
    simulated.clear()
    list(run_jobs(given, todo, directory=tmp_path, processes=1))
    assert simulated == [todo[0].arm.policy.name]
    assert json.loads(damaged.read_text())["arm"] == todo[0].arm.name


def test_ratios_are_of_the_same_requests(tmp_path: Path) -> None:
    todo = jobs(ARMS, [parse_load("60")], [0, 1, 2], None)
    records = [record for _, record in run_jobs(setting(), todo, directory=tmp_path, processes=1)]
    arms = load_summary(parse_load("60"), ARMS, records)["arms"]
    assert arms["fcfs"]["mean_ratio"] == pytest.approx(1.0)
    pairs = [
        next(r["latency_s"]["mean"] for r in records if r["arm"] == name and r["repeat"] == repeat)
        for name in ("sjf", "fcfs")
        for repeat in range(3)
    ]
    expected = np.exp(np.mean(np.log(pairs[:3]) - np.log(pairs[3:])))
    assert arms["sjf"]["mean_ratio"] == pytest.approx(expected)
    low, high = arms["sjf"]["mean_ratio_ci95"]
    assert low < arms["sjf"]["mean_ratio"] < high
    assert arms["trail-c0.2"]["c"] == 0.2
    assert arms["sjf"]["c"] is None


def simulate_command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(words))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    at = np.cumsum(rng.exponential(0.2, 400))
    rows = (
        f"{t:.3f},{p},{o}"
        for t, p, o in zip(at, rng.integers(5, 300, 400), rng.integers(1, 90, 400), strict=True)
    )
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return path


def test_the_command_writes_results_and_report(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [
        str(trace), "--arms", "fcfs,trail,oracle-c0,adaptive-c1", "--c", "0,0.5", "--load", "0.8x,1.2x",
        "--seeds", "2", "--slots", "8", "--requests", "200", "--jobs", "1", "--keep-requests", "40",
        "--out", str(out),
    ]  # fmt: skip
    assert simulate_command(*words) == 0
    results = json.loads((out / "results.json").read_text())
    assert list(results["arms"]) == ["fcfs", "trail-c0", "trail-c0.5", "oracle-c0", "adaptive-c1"]
    assert results["load"]["times_capacity"] == pytest.approx(1.2)
    assert results["config"]["arrivals"] == "recorded"
    assert [entry["load"] for entry in results["sweep"]] == ["0.8x", "1.2x"]
    assert all(len(arm["runs"]) == 2 for arm in results["arms"].values())
    assert len(results["arms"]["fcfs"]["runs"][0]["requests"]["arrival_s"]) == 40
    page = (out / "report.html").read_text()
    assert "Over load" in page
    assert "Over c" in page
    assert page.count("<svg") >= 6
    assert "Simulated: no model ran." in page
    assert "trail-c0.5" in capsys.readouterr().out
    again = json.loads((out / "results.json").read_text())
    assert simulate_command(*words) == 0
    again = json.loads((out / "results.json").read_text())
    for entry in (results, again):
        for name in ("started_at", "seconds"):
            del entry[name]
    assert again == results


def test_arrivals_of_lengths_and_bursts(tmp_path: Path) -> None:
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("length\n" + "\n".join(str(n) for n in range(1, 90)) + "\n")
    common = ["--arms", "fcfs,sjf", "--seeds", "1", "--slots", "8", "--requests", "100", "--jobs", "1"]
    for kind, text in (("burst", "burst"), ("gamma:4", "gamma:4 arrivals"), ("poisson", "poisson arrivals")):
        out = tmp_path / kind.replace(":", "-")
        assert simulate_command(str(lengths), "--arrivals", kind, *common, "--out", str(out)) == 0
        assert text in json.loads((out / "results.json").read_text())["load"]["text"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--load", "much"], "--load 'much'"),
        (["--load", ","], "names no load"),
        (["--arms", "best"], "unknown policy 'best'"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--kv-tokens", "64"], "needs .* KV blocks"),
        (["--steps", "nothing"], "no step model 'nothing'"),
        (["--predictor", "crystal"], "--predictor 'crystal'"),
        (["--arrivals", "trace:none.csv"], "none.csv"),
        (["--every", "0"], "--every must be at least 1"),
        (["--arms", "trail", "--c", "2"], "lie in"),
    ],
)
def test_bad_options_are_refused(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    import re

    assert (
        simulate_command(str(trace), "--seeds", "1", "--jobs", "1", "--out", str(tmp_path / "o"), *words) == 2
    )
    assert re.search(message, capsys.readouterr().err)


def test_a_missing_workload_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate_command(str(tmp_path / "none.csv"), "--out", str(tmp_path)) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err
