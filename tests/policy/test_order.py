"""Ranks of adaptive: its knob, its bound, classes and deadlines, for any requests."""

import itertools
import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trail.policy import decide
from trail.policy.guard import overtake_bound
from trail.policy.ranks import UNCOMPUTED_SHARE, Terms, effective_ranks, ranks
from trail.policy.sizes import rank_requests
from trail.policy.spec import POLICY_NAMES, PolicySpec

# Whole numbers, so that equal ones are common and different ones are further apart than rounding.
REQUEST = st.fixed_dictionaries(
    {
        "size": st.integers(0, 400), "arrival": st.integers(0, 10**6), "uncomputed": st.integers(0, 4000),
        "priority": st.integers(-3, 3), "allowed": st.sampled_from([math.inf, math.inf, 0.5, 30.0, 1e4]),
        "protected": st.booleans(),
    }
)  # fmt: skip
REQUESTS = st.lists(REQUEST, min_size=1, max_size=10)
KAPPAS = st.sampled_from([0.0, 0.1, 1.0, 4.0, 1e3, math.inf])
TERMS = st.builds(
    lambda kappa, mean, prompt, wait, token: Terms.of(
        PolicySpec("adaptive", kappa=kappa), mean_initial=mean, mean_prompt=prompt, wait_s=wait, token_s=token
    ),
    KAPPAS,
    st.sampled_from([0.0, 1.0, 50.0, 300.0]),
    st.sampled_from([0.0, 30.0, 1200.0]),
    st.sampled_from([0.0, 0.5, 20.0, 3000.0]),
    st.sampled_from([0.0, 0.02]),
)
FINITE = TERMS.filter(lambda terms: math.isfinite(terms.kappa))
TOLERANCE_S = 1e-6


def arrays(requests: list[dict], **instead: object) -> dict:
    """Arguments of `ranks`."""
    arrival = np.array([float(r["arrival"]) for r in requests])
    values = {
        "size": np.array([float(r["size"]) for r in requests]),
        "arrival_s": arrival,
        "deadline_s": arrival + np.array([r["allowed"] for r in requests]),
        "priority": np.array([r["priority"] for r in requests]),
        "uncomputed_tokens": np.array([r["uncomputed"] for r in requests]),
    }
    return {**values, **{k: np.full(len(requests), v) for k, v in instead.items()}}


PLAIN = {"deadline_s": math.inf, "priority": 0}


def work(requests: list[dict]) -> np.ndarray:
    return np.array([max(r["size"] + UNCOMPUTED_SHARE * r["uncomputed"], 1.0) for r in requests])


@given(FINITE, REQUESTS)
def test_nobody_who_arrives_later_than_the_bound_goes_before_a_waiting_request(
    terms: Terms, requests: list[dict]
) -> None:
    values = arrays(requests, **PLAIN)
    effective = effective_ranks(terms, protected=np.zeros(len(requests), np.bool_), **values)
    order = decide.serving_order(effective, values["arrival_s"]).tolist()
    bound = overtake_bound(terms.kappa, terms.wait_s, terms.scale)
    for place, later in enumerate(order):
        for earlier in order[place + 1 :]:
            assert requests[later]["arrival"] <= requests[earlier]["arrival"] + bound + TOLERANCE_S


@given(FINITE, st.integers(0, 10**6), st.integers(1, 400), st.integers(0, 400))
def test_the_bound_is_reached_by_the_shortest_and_not_by_much_less(
    terms: Terms, arrival: int, size: int, uncomputed: int
) -> None:
    """A bound that is stated is worth something only if it is not far from what can happen."""
    bound = overtake_bound(terms.kappa, terms.wait_s, terms.scale)
    shortest = {"size": 1, "uncomputed": 0, "arrival": arrival + bound * 0.999 - 1e-3, "priority": 0}
    longest = {"size": 10**7, "uncomputed": 0, "arrival": arrival, "priority": 0}
    found = ranks(terms, **arrays([{**longest, "allowed": math.inf}, {**shortest, "allowed": math.inf}]))
    assert found[1] < found[0]
    between = {"size": size, "uncomputed": uncomputed, "arrival": arrival, "priority": 0, "allowed": math.inf}
    rank = float(ranks(terms, **arrays([between]))[0])
    assert arrival - bound - TOLERANCE_S <= rank <= arrival


@given(TERMS, REQUESTS)
def test_without_a_knob_it_is_first_come_first_served(terms: Terms, requests: list[dict]) -> None:
    values = arrays(requests, **PLAIN)
    assert ranks(replace(terms, kappa=0.0), **values).tolist() == values["arrival_s"].tolist()


@given(TERMS, REQUESTS)
def test_with_an_infinite_knob_it_is_the_order_of_sizes(terms: Terms, requests: list[dict]) -> None:
    found = ranks(replace(terms, kappa=math.inf), **arrays(requests, **PLAIN))
    assert found.tolist() == work(requests).tolist()


@given(REQUESTS)
def test_a_large_knob_is_nearly_an_infinite_one(requests: list[dict]) -> None:
    """At T of three days a second of waiting is worth a millionth of a request's length."""
    near = [{**r, "arrival": r["arrival"] % 10} for r in requests]
    terms = Terms.of(PolicySpec("adaptive", kappa=1e9), mean_initial=100.0, wait_s=10.0)
    order = decide.serving_order(ranks(terms, **arrays(near, **PLAIN)), np.arange(len(near)))
    in_turn = np.minimum(work(near), 400.0)[order]  # far beyond the mean boosts are all but equal
    assert (in_turn[1:] >= in_turn[:-1] * (1 - 1e-3)).all()


@given(TERMS, REQUESTS)
def test_equal_sizes_are_first_come_first_served(terms: Terms, requests: list[dict]) -> None:
    values = arrays(requests, **PLAIN, size=77.0, uncomputed_tokens=5)
    order = decide.serving_order(ranks(terms, **values), values["arrival_s"])
    assert (np.diff(values["arrival_s"][order]) >= 0).all()


@given(st.sampled_from(sorted(set(POLICY_NAMES) - {"adaptive"})), REQUESTS, st.integers(0, 200))
def test_equal_predictions_of_requests_that_wait_are_first_come_first_served(
    name: str, requests: list[dict], prediction: int
) -> None:
    spec, n = PolicySpec(name), len(requests)
    same = np.full(n, float(prediction))
    found = rank_requests(
        spec, initial=same, remaining=same, exact=np.zeros(n), age=np.zeros(n), prompt_tokens=np.full(n, 20)
    )
    values = arrays(requests)
    effective = effective_ranks(
        Terms.of(spec, mean_initial=50.0),
        protected=np.zeros(n, np.bool_),
        **{**values, "size": found.rank},
    )
    order = decide.serving_order(effective, values["arrival_s"])
    assert (np.diff(values["arrival_s"][order]) >= 0).all()


@given(TERMS, REQUESTS)
def test_the_shorter_a_request_the_earlier_its_rank(terms: Terms, requests: list[dict]) -> None:
    """Between updates of the board ranks only fall: what the engine's cheap path stands on."""
    values = arrays(requests, deadline_s=math.inf)
    shorter = {**values, "size": np.maximum(values["size"] - 1, 0)}
    assert (ranks(terms, **shorter) <= ranks(terms, **values)).all()


@given(TERMS, REQUESTS)
def test_deadlines_only_ever_bring_a_request_forward(terms: Terms, requests: list[dict]) -> None:
    stated, without = arrays(requests), arrays(requests, deadline_s=math.inf)
    found, before = ranks(terms, **stated), ranks(terms, **without)
    assert (found <= before).all()
    unstated = np.isinf(stated["deadline_s"])
    assert found[unstated].tolist() == before[unstated].tolist()


@given(FINITE, REQUESTS)
def test_a_deadline_is_a_rank_of_at_most_what_is_left_of_it(terms: Terms, requests: list[dict]) -> None:
    values = arrays(requests, priority=0)
    w = values["size"] + UNCOMPUTED_SHARE * values["uncomputed_tokens"]
    latest = values["deadline_s"] - terms.wait_s - terms.token_s * w
    assert (ranks(terms, **values) <= latest + TOLERANCE_S).all()


@given(TERMS, REQUESTS)
def test_a_higher_class_goes_first_and_within_a_class_nothing_changes(
    terms: Terms, requests: list[dict]
) -> None:
    values = arrays(requests)
    protected = np.array([r["protected"] for r in requests])
    effective = effective_ranks(terms, protected=protected, **values)
    order = decide.serving_order(effective, values["arrival_s"]).tolist()
    plain = ranks(terms, **{**values, "priority": np.zeros(len(requests))})
    for one, other in itertools.pairwise(order):
        assert protected[one] or not protected[other]
        if not protected[one]:
            assert values["priority"][one] <= values["priority"][other]
            if values["priority"][one] == values["priority"][other]:
                assert plain[one] <= plain[other] + TOLERANCE_S


@given(st.sampled_from(POLICY_NAMES), REQUESTS)
def test_the_protected_have_minus_infinity_and_the_others_their_rank(name: str, requests: list[dict]) -> None:
    terms = Terms.of(PolicySpec(name), mean_initial=50.0, wait_s=3.0)
    values, protected = arrays(requests), np.array([r["protected"] for r in requests])
    effective = effective_ranks(terms, protected=protected, **values)
    assert (effective[protected] == -np.inf).all()
    assert effective[~protected].tolist() == ranks(terms, **values)[~protected].tolist()


@given(st.sampled_from(sorted(set(POLICY_NAMES) - {"adaptive"})), REQUESTS)
def test_other_policies_rank_by_size_alone(name: str, requests: list[dict]) -> None:
    terms = Terms.of(PolicySpec(name), mean_initial=50.0, wait_s=3.0, token_s=1.0)
    values = arrays(requests)
    assert ranks(terms, **values).tolist() == values["size"].tolist()
