"""What the controller of c promises, under pressures of all kinds and beside a plant that answers to c."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.policy.controller import (
    LEVELS,
    ControllerState,
    Decision,
    Law,
    Objective,
    Pressure,
    decide,
    initial_state,
    levels,
    lost_share,
    price,
    price_limit,
)

LAW = Law()
ANY = st.one_of(st.floats(), st.floats(0, 1e6), st.just(math.nan))
RUBBISH = st.builds(Pressure, **dict.fromkeys(Pressure.__dataclass_fields__, ANY))
BOUNDS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
WEIGHT = st.floats(0, 10)
OBJECTIVE = st.builds(
    lambda weights, budget, gap, bounds: Objective(weights[0], weights[1], budget, gap, bounds[0], bounds[1]),
    st.tuples(WEIGHT, WEIGHT).filter(lambda w: sum(w) > 0),
    st.floats(0.01, 1),
    st.one_of(st.just(math.inf), st.floats(0.1, 10)),
    BOUNDS,
)
COST = st.floats(-4, 1).map(lambda x: 10**x)
TOKENS = st.floats(1, 3.5).map(lambda x: 10**x)
LOST = st.floats(0.01, 1)


def plant(
    cost: float,
    prompt: float,
    answer: float,
    lost: float,
    *,
    waiting: float = 20.0,
    usage: float = 0.3,
    gap_s: float = 0.0,
) -> Callable[[float], Pressure]:
    """A workload under constant load: what its pressure is under c. Preemptions come when c lets them."""

    def answer_to(c: float) -> Pressure:
        preemptions_s = 2.0 * math.sqrt(c) if waiting else 0.0
        return Pressure(
            interval_s=2.0, waiting=waiting, running=32, usage=usage, free_blocks=1000.0 * (1.0 - usage),
            generated_s=1000.0, recomputed_s=preemptions_s * lost * (prompt + 2 * c * answer),
            preemptions_s=preemptions_s, recompute_cost=cost, prompt_tokens=prompt, answer_tokens=answer,
            prefix_cache=math.nan, short_wait_s=0.5, gap_s=gap_s * c,
        )  # fmt: skip

    return answer_to


def run(
    respond: Callable[[float], Pressure],
    decisions: int,
    objective: Objective | None = None,
    state: ControllerState | None = None,
) -> list[Decision]:
    objective = objective or Objective()
    state = state or initial_state(objective)
    made = []
    for _ in range(decisions):
        made.append(decide(respond(state.c), state, objective))
        state = made[-1].state
    return made


def turns(cs: Iterable[float]) -> int:
    """How often c turns round."""
    moves = [b - a for a, b in pairwise(cs) if b != a]
    return sum((x > 0) != (y > 0) for x, y in pairwise(moves))


@settings(deadline=None)
@given(st.lists(RUBBISH, max_size=30), OBJECTIVE)
def test_whatever_the_pressures_c_stays_in_bounds_and_moves_two_levels_at_most(
    pressures: list[Pressure], objective: Objective
) -> None:
    state = initial_state(objective)
    ladder = levels(objective)
    place = min(range(len(ladder)), key=lambda i: abs(ladder[i] - state.c))
    for pressure in pressures:
        decision = decide(pressure, state, objective)
        assert objective.c_min <= decision.c <= objective.c_max
        assert decision.state.c == decision.c
        assert abs(ladder.index(decision.c) - place) <= LAW.stride
        assert decision.reason
        place, state = ladder.index(decision.c), decision.state
    assert not any(math.isinf(value) for value in vars(state).values())


@settings(deadline=None)
@given(COST, TOKENS, TOKENS, LOST, st.floats(0, 10), st.integers(0, 2**32))
def test_c_does_not_turn_while_prices_stay_within_the_margin(
    cost: float, prompt: float, answer: float, lost: float, weight: float, seed: int
) -> None:
    """The measured cost wanders within the band of the hysteresis; what the cache keeps is known."""
    objective = Objective(1.0, weight, recompute_budget=1.0)
    known = replace(initial_state(objective), preempted=1e6, lost=lost * 1e6)
    wander = (1 + LAW.margin) ** 0.98

    def respond(c: float, step: list[int] = [seed]) -> Pressure:  # noqa: B006 - the step is what it keeps
        step[0] = (step[0] * 6364136223846793005 + 1) % 2**64
        factor = wander ** (2 * (step[0] >> 11) / 2**53 - 1)
        return plant(cost * factor, prompt, answer, lost)(c)

    assert turns([known.c, *(d.c for d in run(respond, 300, objective, known))]) == 0


@settings(deadline=None)
@given(COST, TOKENS, TOKENS, LOST, WEIGHT)
def test_under_constant_load_c_settles_and_the_price_is_on_the_right_side(
    cost: float, prompt: float, answer: float, lost: float, weight: float
) -> None:
    objective = Objective(1.0, weight, recompute_budget=1.0)
    made = run(plant(cost, prompt, answer, lost), 400, objective)
    cs = [d.c for d in made]
    assert turns(cs) <= 2  # learning what the cache keeps may turn it up and down once
    assert len(set(cs[200:])) == 1
    state, c = made[-1].state, cs[-1]
    limit = price_limit(objective, LAW)
    if c == 0:
        assert price(LEVELS[1], state, LAW) > limit / (1 + LAW.margin)
    else:
        assert price(c, state, LAW) <= limit * (1 + LAW.margin)
        if c < 1:
            above = LEVELS[LEVELS.index(c) + 1]
            assert price(above, state, LAW) >= limit / (1 + LAW.margin)


def test_zero_is_reached_where_recomputation_is_dear_and_one_where_it_is_free() -> None:
    assert run(plant(0.5, 1000, 200, 1.0), 100)[-1].c == 0.0
    assert run(plant(0.001, 200, 200, 1.0), 100)[-1].c == 1.0


def test_what_the_prefix_cache_keeps_is_learnt() -> None:
    expensive, kept = run(plant(0.1, 400, 200, 1.0), 200), run(plant(0.1, 400, 200, 0.02), 200)
    assert expensive[-1].c == 0.0
    assert kept[-1].c == 1.0
    assert lost_share(kept[-1].state, LAW) == pytest.approx(0.02, abs=0.02)


def test_a_queue_that_outgrows_free_memory_lowers_c_before_anything_is_lost() -> None:
    known = run(plant(0.1, 400, 200, 0.01), 200)[-1]
    assert known.c == 1.0
    crowded = run(plant(0.1, 400, 200, 0.0, waiting=300.0, usage=0.8), 20, state=known.state)
    assert crowded[-1].c == 0.0
    assert crowded[-1].state.lost < 0.02 * crowded[-1].state.preempted


def test_where_memory_is_full_nobody_is_preempted_to_learn_what_the_cache_keeps() -> None:
    full = plant(0.05, 1000, 200, 1.0, usage=0.98)
    quiet = plant(0.05, 1000, 200, 1.0, usage=0.98, waiting=0.0)
    made = run(full, 3)
    made += run(quiet, 20, state=made[-1].state)
    made += run(full, 100, state=made[-1].state)
    assert {d.c for d in made[1:]} == {0.0}
    roomy = run(plant(0.05, 1000, 200, 0.005), 100, state=made[-1].state)
    assert roomy[-1].c > 0.0, "and when there is room it is tried"


@settings(deadline=None)
@given(COST, TOKENS, TOKENS, LOST, WEIGHT)
def test_after_a_quiet_time_a_burst_finds_c_where_the_burst_before_left_it(
    cost: float, prompt: float, answer: float, lost: float, weight: float
) -> None:
    objective = Objective(1.0, weight, recompute_budget=1.0)
    burst = run(plant(cost, prompt, answer, lost), 400, objective)[-1]
    quiet = run(plant(cost, prompt, answer, lost, waiting=0.0), 200, objective, burst.state)
    assert {d.c for d in quiet} == {burst.c}


@settings(deadline=None)
@given(COST, TOKENS, TOKENS, LOST, st.floats(0.05, 5), st.floats(0.1, 20))
def test_broken_bounds_turn_c_no_oftener_than_the_logarithm_of_time(
    cost: float, prompt: float, answer: float, lost: float, bound: float, gap: float
) -> None:
    objective = Objective(1.0, 1.0, recompute_budget=0.02, gap_bound_s=bound)
    decisions = 1000
    made = run(plant(cost, prompt, answer, lost, gap_s=gap), decisions, objective)
    assert turns([d.c for d in made]) <= 2 * math.log2(decisions)


def test_a_broken_bound_on_pauses_lowers_c_until_it_holds() -> None:
    objective = Objective(gap_bound_s=1.0)
    made = run(plant(0.001, 200, 200, 1.0, gap_s=4.0), 400, objective)
    assert 4.0 * made[-1].c <= 1.0 or made[-1].state.since_break <= 1
    assert sum(4.0 * d.c > 1.0 for d in made[100:]) / 300 < 0.1


def test_a_budget_that_broke_is_forgotten_when_recomputation_is_cheap_again() -> None:
    objective = Objective(recompute_budget=0.02)
    expensive = run(plant(0.5, 400, 200, 1.0), 200, objective)
    assert expensive[-1].state.ceiling < 1.0
    cheap = run(plant(0.0005, 400, 200, 1.0), 100, objective, expensive[-1].state)
    assert cheap[-1].c == 1.0


def test_without_a_known_cost_c_goes_to_its_start() -> None:
    unknown = plant(math.nan, 200, 200, 1.0)
    for c in (0.0, 1.0):
        state = replace(initial_state(Objective()), c=c)
        made = run(unknown, 10, state=state)
        assert made[-1].c == LAW.start
        assert "not known" in made[-1].reason


@settings(deadline=None)
@given(COST, TOKENS, TOKENS, LOST, st.floats(0, 5), st.floats(0, 5))
def test_the_more_ttft_counts_the_higher_c_may_be(
    cost: float, prompt: float, answer: float, lost: float, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    respond = plant(cost, prompt, answer, lost)
    ends = [run(respond, 300, Objective(1.0, w, recompute_budget=1.0))[-1].c for w in (low, high)]
    assert ends[0] <= ends[1]


def test_more_free_memory_lets_c_be_tried_again_a_bounded_number_of_times() -> None:
    full = run(plant(0.1, 400, 200, 1.0), 300)[-1]
    assert full.c == 0.0
    seen = [full.c]
    state = full.state
    for _ in range(1000):
        now = plant(0.1, 400, 200, 0.02)(state.c)
        decision = decide(replace(now, free_blocks=5000.0), state, Objective())
        state = decision.state
        seen.append(decision.c)
    assert seen[-1] == 1.0
    assert turns(seen) == 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"latency_weight": 0.0, "ttft_weight": 0.0}, "weights"),
        ({"ttft_weight": -1.0}, "weights"),
        ({"latency_weight": math.nan}, "weights"),
        ({"recompute_budget": 0.0}, "recompute_budget"),
        ({"gap_bound_s": -1.0}, "gap_bound_s"),
        ({"c_min": 0.5, "c_max": 0.2}, "min <= max"),
        ({"c_max": 1.5}, "min <= max"),
    ],
)
def test_an_objective_out_of_range_is_refused_by_name(fields: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Objective(**fields)
