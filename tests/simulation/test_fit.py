"""A step model is found again from the results of a server whose step model is known: the simulator's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trail import cli
from trail.bench.results import ResultsError, assemble
from trail.policy.spec import PolicySpec
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.steptime import COEFFICIENTS, StepModel, StepModelError, read_step_model
from trail.simulation.engine.workload import Workload
from trail.simulation.fit import fit_files, fit_steps, intervals, run_marks
from trail.simulation.run import run_record, simulate
from trail.wire.files import write_json

TRUTH = StepModel("truth", 2e-3, 5e-5, 4e-5, 2e-7)
BUSY = StepModel("busy", 2e-3, 5e-5, 0.0, 2e-7, 5e-3)
"""Of an engine that shares its cores with its API server."""


def record(rate_per_s: float, seed: int, n: int = 400, model: StepModel = TRUTH) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    work = Workload(
        np.cumsum(rng.exponential(1 / rate_per_s, n)), rng.integers(5, 400, n), rng.integers(2, 300, n)
    )
    served = simulate(EngineConfig(slots=16, token_budget=2048), model, work, PolicySpec("fcfs"))
    return run_record(served, arm="fcfs", repeat=seed, order=seed, predictions=None, keep=n)


def results_file(path: Path, records: list[dict[str, Any]], *args: str) -> Path:
    meta = {"complete": True, "config": {"model": "some/truth", "vllm_args": list(args)}}
    write_json(path, assemble(meta, ["fcfs"], records))
    return path


def test_the_model_is_found_again() -> None:
    runs = [run_marks(record(rate, seed)) for seed, rate in enumerate((5.0, 20.0, 60.0))]
    model, error = fit_steps(runs, "fitted")
    for composition in ((1, 0, 300), (16, 0, 6000), (8, 400, 3000), (16, 200, 5000)):
        assert model.seconds(*composition) == pytest.approx(TRUTH.seconds(*composition), rel=0.1)
    assert error.mean_relative < 0.05
    assert abs(error.bias) < 0.02
    # The whole measured time is the model's.
    parts = [intervals(marks, model.prefill_token_s) for marks in runs]
    coefficients = [getattr(model, c) for c in COEFFICIENTS]
    whole = sum(float((sums @ coefficients).sum()) for sums, _ in parts)
    assert whole == pytest.approx(sum(float(seconds.sum()) for _, seconds in parts), rel=1e-3)


def test_what_a_request_costs_when_it_comes_is_told_from_what_it_costs_when_it_starts() -> None:
    runs = [run_marks(record(rate, seed, model=BUSY)) for seed, rate in enumerate((5.0, 20.0, 60.0))]
    model, _ = fit_steps(runs, "fitted")
    assert model.arrival_s == pytest.approx(BUSY.arrival_s, rel=0.15)
    mean_prompt = 200.0
    assert model.prefill_token_s * mean_prompt < 0.2 * BUSY.arrival_s


def test_what_lies_between_two_tokens_of_a_lone_request() -> None:
    run = {
        "requests": {
            "arrival_s": [0.0, 5.0],
            "ttft_s": [1.0, 0.5],
            "latency_s": [11.0, 1.0],
            "prompt_tokens": [7, 9],
            "output_tokens": [21, 2],
        }
    }
    sums, seconds = intervals(run_marks(run))
    # 20 steps of its own in 10 s; the other request's prompt and one more token fall in between. It reads
    # 8, 9, ... 27 tokens for the first, 10 for the other's, whose prompt reads 9.
    assert sums.tolist() == [[20.0, 21.0, 9.0, sum(range(8, 28)) + 10.0 + 9.0, 1.0]]
    assert seconds.tolist() == [10.0]


def test_the_command_writes_what_simulate_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = results_file(tmp_path / "a.json", [record(20.0, 0), record(60.0, 1)], "--max-num-seqs", "16")
    out = tmp_path / "deep" / "steps.json"
    assert cli_fit(str(file), "--arms", "fcfs", "--name", "mine", "--out", str(out)) == 0
    model = read_step_model(str(out))
    assert model.name == "mine"
    assert model.origin["results"] == [str(file)]
    assert 0 <= model.origin["error"]["mean_relative"] < 0.1
    assert "held-out" in capsys.readouterr().out


def cli_fit(*words: str) -> int:
    if any(c.name == "fit-steps" for c in cli.COMMANDS):
        return cli.main(["fit-steps", *words])
    import argparse

    from trail.commands import fit_steps as fit_command

    parser = argparse.ArgumentParser()
    fit_command.configure(parser)
    return fit_command.run(parser.parse_args(words))


def test_what_cannot_be_fitted_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = results_file(tmp_path / "few.json", [record(5.0, 0, n=10)])
    with pytest.raises(StepModelError, match=r"only \d+ stretches"):
        fit_files([few])
    with pytest.raises(StepModelError, match="only 0 stretches"):
        fit_files([few], arms=["sjf"])
    other = results_file(tmp_path / "other.json", [record(5.0, 0)], "--max-num-seqs", "8")
    with pytest.raises(StepModelError, match="differently started engines"):
        fit_files([few, other])
    preempted = record(20.0, 0)
    preempted["engine"]["preemptions"] = 1
    with pytest.raises(StepModelError, match="only 0 stretches"):
        fit_files([results_file(tmp_path / "preempted.json", [preempted])])
    (tmp_path / "broken.json").write_text(json.dumps({"arms": []}))
    with pytest.raises(ResultsError, match=r"broken\.json"):
        fit_files([tmp_path / "broken.json"])
    assert cli_fit(str(tmp_path / "nothing.json")) == 2
    assert "nothing.json" in capsys.readouterr().err
