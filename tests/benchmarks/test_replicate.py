"""Means with control variates: what they cost, and that their intervals hold the truth."""

import numpy as np
import pytest

from trail.simulation.plan.mg1 import joint_law
from trail.simulation.plan.queue_sim import fcfs_response_times
from trail.simulation.plan.replicate import (
    Effort,
    PairSource,
    controlled_mean,
    expected_controls,
    replicate,
)

LAW = joint_law([1.0, 2.0, 7.0], [2.0, 2.0, 5.0], [3, 2, 1])


def test_what_the_controls_explain_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    expected = np.array([2.0, 5.0])
    controls = expected + rng.normal(size=(12, 2))
    estimate = controlled_mean(7 + (controls - expected) @ [3.0, -2.0], controls, expected)
    assert estimate.value == pytest.approx(7)
    assert estimate.half_width < 1e-9


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held, widths = 0, []
    for _ in range(1000):
        controls = 4 + rng.normal(size=(12, 2))
        values = 10 + 2 * (controls[:, 0] - 4) + rng.normal(size=12)
        estimate = controlled_mean(values, controls, np.array([4.0, 4.0]))
        held += abs(estimate.value - 10) <= estimate.half_width
        widths.append(estimate.half_width)
        assert controlled_mean(values, controls, np.array([4.0, 4.0]), 0.99).half_width > widths[-1]
    # Four standard deviations of a binomial count.
    assert abs(held - 950) < 28
    raw = [controlled_mean(10 + 2.2 * rng.normal(size=12), np.ones((12, 0)), np.ones(0)) for _ in range(100)]
    assert np.mean(widths) < 0.7 * np.mean([estimate.half_width for estimate in raw])


def test_too_few_replications_are_refused() -> None:
    with pytest.raises(ValueError, match="4 controls need at least 7 replications, got 6"):
        controlled_mean(np.ones(6), np.ones((6, 4)), np.ones(4))


def test_controls_have_the_expectations_that_are_stated() -> None:
    source, load = PairSource(LAW), 0.8
    effort = Effort(requests=20_000, margin=2_000)
    runs = [replicate(source, load, {}, seed=(3, k), effort=effort) for k in range(40)]
    controls = np.array([run.controls for run in runs])
    error = controls.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(controls.mean(axis=0) - expected_controls(source, load)) < 4.5 * error).all()


def test_equal_seeds_draw_equal_requests_and_margins_are_not_judged() -> None:
    effort = Effort(requests=50, margin=7)
    runs = [
        replicate(PairSource(LAW), 0.7, {"fcfs": fcfs_response_times}, seed=seed, effort=effort)
        for seed in ((1, 2), (1, 2), (1, 3))
    ]
    assert [len(run.responses["fcfs"]) for run in runs] == [50] * 3
    assert runs[0].responses["fcfs"].tolist() == runs[1].responses["fcfs"].tolist()
    assert runs[0].responses["fcfs"].tolist() != runs[2].responses["fcfs"].tolist()
    assert runs[0].controls[3] == pytest.approx(runs[0].responses["fcfs"].mean())


def test_pairs_are_drawn_by_their_weights() -> None:
    size, prediction = PairSource(LAW).draw(np.random.default_rng(0), 60_000)
    for x, r, share in ((1.0, 2.0, 3 / 6), (2.0, 2.0, 2 / 6), (7.0, 5.0, 1 / 6)):
        assert ((size == x) & (prediction == r)).mean() == pytest.approx(share, abs=0.01)
