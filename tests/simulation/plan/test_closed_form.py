"""The closed form against the simulation, a part of the grid of `python -m benchmarks.closed_form.verify`."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.closed_form.grid import CS, Group, cells, closed_forms, groups, run_replication
from benchmarks.closed_form.laws import Empirical, generated_lengths
from benchmarks.closed_form.verify import empirical
from trail.simulation.plan.replicate import Effort, controlled_mean, expected_controls

EFFORT = Effort(requests=25_000, margin=5_000)
REPLICATIONS = 12
CONFIDENCE = 0.9999


def compare(group: Group, seed: int) -> None:
    """The closed form lies in an interval that would miss it once in 10,000 times, and is narrow."""
    runs = [run_replication(group, (seed, k), EFFORT) for k in range(REPLICATIONS)]
    controls, expected = np.array([run[1] for run in runs]), expected_controls(group.case, group.load)
    for column, closed in enumerate(closed_forms(group)):
        values = np.array([run[0][column] for run in runs])
        estimate = controlled_mean(values, controls, expected, CONFIDENCE)
        assert abs(estimate.value - closed) <= estimate.half_width, (group, CS[column])
        assert estimate.half_width < 0.06 * closed


PART = groups("generated", generated_lengths(), loads=(0.5, 0.8))


@pytest.mark.parametrize(
    "group", PART, ids=[f"{g.lengths_name}-{g.predictions_name}-{g.load:g}".replace(" ", "-") for g in PART]
)
def test_simulated_means_are_those_of_the_closed_form(group: Group) -> None:
    compare(group, 11)


def test_so_they_are_for_recorded_lengths() -> None:
    if "TRAIL_SHARED" not in os.environ:
        pytest.skip("TRAIL_SHARED is not set: no recorded lengths")
    name, lengths = empirical()
    assert name == "castillo"
    for group in groups(name, lengths, loads=(0.7,)):
        if group.lengths_name == name:
            compare(group, 12)


def test_lengths_are_generated_where_none_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAIL_SHARED", raising=False)
    assert empirical()[0] == "generated"
    monkeypatch.setenv("TRAIL_SHARED", str(Path("nowhere")))
    with pytest.raises(ValueError, match="cannot be read"):
        empirical()


def test_a_wrong_formula_is_found_out() -> None:
    """The square instead of both factors is many intervals away."""
    group = next(g for g in PART if g.predictions_name == "binned" and g.load == 0.8)
    runs = [run_replication(group, (13, k), EFFORT) for k in range(REPLICATIONS)]
    estimate = controlled_mean(
        np.array([run[0][0] for run in runs]),
        np.array([run[1] for run in runs]),
        expected_controls(group.case, group.load),
        CONFIDENCE,
    )
    law = group.case.law()
    rate = law.rate(group.load)
    squared = 0.0
    for r in np.unique(law.prediction):
        here, up_to = law.prediction == r, rate * law.weight @ (law.size * (law.prediction <= r))
        squared += law.weight[here].sum() * rate * law.second_moment / (2 * (1 - up_to) ** 2)
    assert squared + law.mean_size > estimate.value + 5 * estimate.half_width


@pytest.mark.parametrize("group", [g for g in PART if g.load == 0.5], ids=lambda g: g.predictions_name)
def test_pairs_and_draws_are_of_one_law(group: Group) -> None:
    law, rng = group.case.law(), np.random.default_rng(5)
    size, prediction = group.case.draw(rng, 400_000)
    quantities: list[Callable[[np.ndarray, np.ndarray], np.ndarray]] = [
        lambda x, _: x,
        lambda x, _: x**2,
        lambda _, r: np.log(r),
        lambda x, r: (r <= x).astype(float),
        lambda x, r: x * (r < group.lengths.mean),
    ]
    for quantity in quantities:
        drawn = quantity(size, prediction)
        error = drawn.std() / np.sqrt(len(drawn))
        slack = 0.004 * abs(drawn.mean())  # what a continuous law loses in cells
        assert abs(law.mean(quantity(law.size, law.prediction)) - drawn.mean()) < 4.5 * error + slack
    assert group.lengths.mean == pytest.approx(law.mean_size, rel=1e-4)
    assert group.lengths.second_moment == pytest.approx(law.second_moment, rel=1e-3)


def test_cells_of_the_grid_say_what_was_simulated() -> None:
    group = Group("few", "perfect", Empirical(np.array([1.0, 4.0])), PART[0].predictions, 0.6)
    effort = Effort(requests=500, margin=100)
    found = cells(group, [run_replication(group, (0, k), effort) for k in range(8)], effort)
    assert [cell["c"] for cell in found] == list(CS)
    for cell in found:
        assert cell["requests"] == 4000
        assert cell["ratio"] == pytest.approx(cell["simulated"] / cell["closed_form"])
        assert cell["ci95"][0] < cell["simulated"] < cell["ci95"][1]
