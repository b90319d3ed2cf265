"""The sequential test: its evidence, its false alarms, and verdicts that turn and turn back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.predict.drift import ALARM, STAKES, Evidence, Judge, advantage

advantages = st.lists(st.floats(-1.0, 1.0), max_size=60)


def slow_evidence(xs: list[float]) -> float:
    """The greatest product of the latest factors, by stake: max(M, 1)(1 - lambda x) unrolled."""
    total = 0.0
    for stake in STAKES:
        products = [math.prod(1 - stake * x for x in xs[start:]) for start in range(len(xs))]
        total += max(products, default=0.0)
    return total / len(STAKES)


@given(advantages)
def test_evidence_is_the_best_bet_since_any_start(xs: list[float]) -> None:
    evidence = Evidence()
    for x in xs:
        evidence.add(x)
    assert evidence.value == pytest.approx(slow_evidence(xs), rel=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), min_size=1, max_size=20))
def test_advantage_is_bounded_and_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    x = advantage(a, b)
    assert np.all(np.abs(x) <= 1)
    assert np.array_equal(x, -advantage(b, a))
    assert np.all((x > 0) <= (a < b))


@pytest.mark.parametrize("x", [1.5, -2.0, math.nan])
def test_what_is_no_advantage_is_refused(x: float) -> None:
    with pytest.raises(ValueError, match="advantage"):
        Evidence().add(x)


def test_false_alarms_at_equality_keep_the_bound() -> None:
    """At a low threshold h, where alarms can be counted: at most t / h of runs of t requests."""
    rng, runs, requests, threshold = np.random.default_rng(5), 400, 100, 1000.0
    for sizes in ([1.0], [0.1, 0.9], [0.5]):
        alarms = 0
        for _ in range(runs):
            judge = Judge(alarm=threshold)
            xs = rng.choice(sizes, requests) * rng.choice([-1.0, 1.0], requests)
            alarms += any(judge.add(float(x)) for x in xs)
        assert alarms / runs <= requests / threshold


def test_a_verdict_turns_and_turns_back_once() -> None:
    judge = Judge()
    rng = np.random.default_rng(1)
    changes = []
    for i in range(900):
        mean = -0.3 if 300 <= i < 600 else 0.3
        x = float(np.clip(mean + 0.4 * rng.standard_normal(), -1, 1))
        if judge.add(x):
            changes.append((i, judge.trusted))
    (off, trusted_off), (on, trusted_on) = changes
    assert (trusted_off, trusted_on, judge.switches) == (False, True, 2)
    assert 300 < off < 400
    assert 600 < on < 700


def test_evidence_says_how_far_the_next_switch_is() -> None:
    judge = Judge()
    assert judge.evidence == 0.0
    while not judge.add(-0.5):
        assert 0 <= judge.evidence < 1
    assert not judge.trusted
    assert judge.evidence == 0.0
    assert ALARM > 1
