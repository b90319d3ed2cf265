"""A simulated scheduler whose c is set while it runs, beside one whose c stands still."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.control.__main__ import run
from benchmarks.control.constant import EVERY_TOKENS, Outcome, run_constants
from benchmarks.control.order import ControlledOrder, LocalControl
from benchmarks.control.regret import OBJECTIVES, rows, run_controlled, turns
from benchmarks.control.settings import AZURE, Setting, grid
from trail.policy.controller import LEVELS, Objective, Pressure
from trail.policy.spec import PolicySpec
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.predictors import Lognormal, Predictions
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.engine.steptime import StepTicks
from trail.simulation.engine.workload import Workload

POLICY = st.sampled_from(["trail", "adaptive", "trail-prompt"])


def engine_of(setting: Setting, requests: int, seed: int) -> tuple[Engine, Workload, Predictions]:
    work = setting.workload(requests, seed)
    predictions = Lognormal().predict(work, EVERY_TOKENS, np.random.default_rng(seed))
    return Engine(setting.engine, work, StepTicks.of(setting.model)), work, predictions


@given(POLICY, st.sampled_from(LEVELS), st.integers(0, 2**16), st.booleans(), st.sampled_from([3.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_a_control_that_never_changes_c_is_the_constant_c(
    policy: str, c: float, seed: int, cache: bool, memory: float
) -> None:
    setting = Setting("bursts", "expensive", cache, 150, 100, slots=8, memory=memory)
    spec = replace(PolicySpec(policy), c=c)
    controlled, _, predictions = engine_of(setting, 150, seed)
    controlled.run(ControlledOrder(spec, controlled, predictions, lambda _: c))
    plain, _, predictions = engine_of(setting, 150, seed)
    plain.run(RankedOrder(spec, plain, predictions))
    assert controlled.journal.end == plain.journal.end
    assert controlled.journal.first_token == plain.journal.first_token


@given(st.floats(0, 1), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_a_change_of_c_acts_on_requests_that_are_already_there(before: float, seed: int) -> None:
    """From the interval after c became 0 nobody gives way for another any more."""
    setting = Setting("bursts", "expensive", False, 150, 100, slots=8)
    engine, _, predictions = engine_of(setting, 200, seed)
    counts = []

    def control(_: Pressure) -> float:
        counts.append(engine.journal.count.policy_preemptions)
        return before if len(counts) < 5 else 0.0

    engine.run(ControlledOrder(PolicySpec("trail", c=before), engine, predictions, control))
    assert len(set(counts[5:])) <= 1
    assert min(engine.journal.end) >= 0


def test_the_meter_sees_what_the_engine_did() -> None:
    setting = Setting("step up", "expensive", False, 1000, slots=16)
    engine, work, predictions = engine_of(setting, 600, 3)
    seen: list[Pressure] = []

    def control(pressure: Pressure) -> float:
        seen.append(pressure)
        return 0.4

    engine.run(ControlledOrder(PolicySpec("trail", c=0.4), engine, predictions, control))
    # Of the intervals that nobody missed; the last one is not read.
    generated = sum(p.generated_s * p.interval_s for p in seen)
    assert 0.9 * work.output_tokens.sum() < generated <= work.output_tokens.sum()
    recomputed = sum(p.recomputed_s * p.interval_s for p in seen)
    assert recomputed == pytest.approx(engine.journal.count.recomputed_tokens, rel=0.1)
    model = setting.model
    context = float((work.prompt_tokens + work.output_tokens / 2).mean())
    output_s = model.fixed_s / 16 + model.sequence_s + model.kv_token_s * context
    # The contexts of those that run are not those of all requests.
    assert seen[-1].recompute_cost == pytest.approx(model.prefill_token_s / output_s, rel=0.2)


def test_the_controller_beats_the_worst_constant_and_its_table_is_whole() -> None:
    setting = Setting("steps", "expensive", False, 1000, slots=16)
    runs = [outcomes(setting, 300, seed) for seed in (1, 2)]
    made = rows(setting, runs)
    assert [row["name"].split("; ")[1] for row in made] == list(OBJECTIVES)
    for row in made:
        assert row["constant"][f"{row['best_c']:g}"] == 0
        assert row["regret"] < max(row["constant"].values())
        low, high = row["regret_interval"]
        assert low <= high
    assert outcomes(setting, 300, 1) == runs[0]


def outcomes(setting: Setting, requests: int, seed: int) -> dict[str, Outcome]:
    return run_constants(setting, requests, seed, LEVELS) | run_controlled(setting, requests, seed)


def test_what_was_found_is_read_again_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting("steps", "expensive", False, 150, slots=8)
    (found,) = run([setting], 100, [1], 1, tmp_path)
    assert found == (setting, [outcomes(setting, 100, 1)])
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("benchmarks.control.__main__.ProcessPoolExecutor", NoPool)
    assert run([setting], 100, [1], 1, tmp_path) == [found]
    for others in ((setting, 100, 2), (setting, 101, 1), (replace(setting, slots=9), 100, 1)):
        with pytest.raises(AssertionError, match="simulated again"):
            run([others[0]], others[1], [others[2]], 1, tmp_path)


class NoPool:
    """Takes no work."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> "NoPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, *_: object) -> None:
        raise AssertionError("simulated again")


def test_the_local_control_gives_what_it_says() -> None:
    control = LocalControl(Objective(c_min=0.05, c_max=0.05))
    setting = Setting("step up", "cheap", True, 150, slots=8)
    engine, _, predictions = engine_of(setting, 150, 1)
    engine.run(ControlledOrder(PolicySpec("trail", c=control.c), engine, predictions, control))
    assert set(control.given) == {0.05}


def test_turns_and_the_grid() -> None:
    assert [turns(x) for x in ([], [1.0], [0, 1, 1, 2], [0, 1, 0], [0, 0, 1, 0, 1, 1])] == [0, 0, 0, 1, 2]
    names = [setting.name for setting in grid()]
    assert len(set(names)) == len(names)
    shapes = {setting.shape for setting in grid()} | {AZURE}
    assert shapes == {"step up", "step down", "steps", "bursts", AZURE}
