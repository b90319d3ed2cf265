"""`make sim`: what it judges, and `make sim-quick` as a whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.policies.__main__ import main
from benchmarks.policies.judge import checks, frontier_gaps, losses, paper_regime
from benchmarks.policies.predictor import measured
from benchmarks.policies.settings import grid
from trail.simulation.engine.workload import Pool, Workload


def arm(mean: float, ttft: float, p99: float, **more: float) -> dict[str, float]:
    return {"mean_ratio": mean, "ttft_ratio": ttft, "p99_ratio": p99, **more}


def row(load: float = 1.05, memory: str = "slots-bound", **arms: dict[str, float]) -> dict[str, Any]:
    named = {name.replace("_", "-"): entry for name, entry in arms.items()}
    return {
        "name": f"{memory}, load {load}",
        "load": load,
        "memory": memory,
        "peak": load >= 1.0,
        "arms": named,
    }


def test_a_target_is_reached_where_every_setting_reaches_it() -> None:
    rows = [
        row(adaptive=arm(0.65, 0.5, 1.2)),
        row(adaptive=arm(0.75, 0.5, 1.1)),
        row(0.7, adaptive=arm(1, 1, 1)),
    ]
    found = {check.name: check for check in checks(rows)}
    mean = found["overload, slots-bound: mean latency"]
    assert (mean.worst, mean.reached_in, mean.settings, mean.reached) == (0.75, 1, 2, False)
    assert found["overload, slots-bound: p99 latency"].reached
    assert found["below 0.9 load: mean latency"].reached
    assert "overload, KV-poor: mean latency" not in found


def test_the_frontier_is_compared_at_the_baselines_tail() -> None:
    found = frontier_gaps(
        row(
            **{
                "adaptive-k0": arm(1.0, 1, 1.0),
                "adaptive": arm(0.8, 1, 1.2),
                "adaptive-kinf": arm(0.6, 1, 4.0),
            },
            fcfs=arm(1.0, 1, 1.0),
            sjf=arm(0.66, 1, 4.0),
            mlfq=arm(0.9, 1, 1.1),
            other=arm(0.7, 1, 1.1),
            none=arm(0.9, 1, 0.9),
        )
    )
    assert found["fcfs"] == pytest.approx(1.0)
    assert found["sjf"] == pytest.approx(0.6 / 0.66)
    assert found["mlfq"] == pytest.approx(1.0)  # half-way between two values of kappa
    assert found["other"] == pytest.approx(0.9 / 0.7)
    assert found["none"] is None


def test_the_papers_regime_and_the_losses_are_named() -> None:
    rows = [
        row(
            **{
                "trail-c0.2": arm(0.6, 0.19, 3.0),
                "trail-c0": arm(0.5, 0.3, 3.0),
                "adaptive": arm(0.7, 0.5, 1.2),
            }
        )
    ]
    assert [found["arm"] for found in paper_regime(rows)] == ["trail-c0.2"]
    assert [(found["arm"], found["p99_ratio"]) for found in losses(rows)] == [
        ("trail-c0.2", 3.0),
        ("trail-c0", 3.0),
    ]


def test_a_classifiers_classes_are_laid_on_the_lengths_by_their_shares(tmp_path: Path) -> None:
    import gzip

    rng = np.random.default_rng(0)
    own = rng.integers(1, 500, 2000)
    cuts = np.quantile(own, [0.25, 0.5, 0.75, 0.99])
    said = np.searchsorted(cuts, own, side="right")  # a classifier that is always right
    with gzip.open(tmp_path / "classes.csv.gz", "wt") as file:
        file.write("actual_output_tokens,pred_class3,pred_class5\n")
        file.writelines(f"{n},0,{k}\n" for n, k in zip(own, said, strict=True))
    output = rng.lognormal(5, 1, 4000).astype(np.int64) + 1
    predictor = measured(tmp_path / "classes.csv.gz", Pool(np.ones(4000, np.int64), output))
    work = Workload(np.zeros(4000), np.ones(4000, np.int64), output)
    initial = predictor.predict(work, 10, np.random.default_rng(1)).initial
    assert len(np.unique(initial)) == 5
    order = np.argsort(output)
    assert (np.diff(initial[order]) >= 0).all()
    longest = output >= np.quantile(output, 0.99)
    assert initial[longest][0] == pytest.approx(output[longest].mean(), rel=0.05)


def test_the_grid_names_every_setting_once() -> None:
    names = [(case.name, load) for case in grid() for load in case.loads]
    assert len(names) == len(set(names))


def test_quick_writes_results_and_page_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--quick", "--jobs", "1", "--requests", "120", "--seeds", "101,102", "--out", str(tmp_path)]
    assert main(options) == 0
    found = json.loads((tmp_path / "policies.json").read_text())
    assert {(s["memory"], s["load"]) for s in found["settings"]} == {
        (memory, load) for memory in ("slots-bound", "KV-poor") for load in (0.85, 1.05)
    }
    for setting in found["settings"]:
        for name in ("fcfs", "fcfs-reserve16", "sjf", "trail-c0.2", "trail-prompt", "mlfq", "adaptive"):
            entry = setting["arms"][name]
            assert {"mean_ratio", "ttft_ratio", "p99_ratio", "recomputed_share"} <= entry.keys()
        assert setting["arms"]["fcfs"]["mean_ratio"] == 1.0
        assert ("adaptive-k4" in setting["arms"]) == (setting["load"] == 1.05)
    page = (tmp_path / "policies.html").read_text()
    assert page.count("<svg") >= 2
    assert "<script" not in page
    runs = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir()}
    assert main(options) == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").iterdir()} == runs
    again = json.loads((tmp_path / "policies.json").read_text())
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "1,x"], "whole numbers"),
        (["--only", "nothing"], "in no setting's name"),
        (["--requests", "3"], "at least 100"),
        (["--arms", "nonsense"], "nonsense"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--quick", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
