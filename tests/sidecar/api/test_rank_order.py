"""`Rank` orders as the board does, and refuses what it cannot rank by naming the field."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_kit import Bench, started

from trail.policy.decide import is_protected, rank_now, serving_order
from trail.policy.ranks import Terms, effective_ranks
from trail.policy.spec import POLICY_NAMES, PolicySpec
from trail.sidecar.api.ranking import Candidate, InvalidCandidate, rank_candidates

specs = st.builds(PolicySpec, st.sampled_from(POLICY_NAMES), st.sampled_from([0.0, 0.3, 0.8, 1.0]))
# Lengths that float32 holds exactly, so that ties on the board are ties in Rank.
lengths = st.integers(1, 64).map(float)
requests = st.fixed_dictionaries(
    {
        "initial": st.one_of(st.just(0.0), lengths), "exact": st.sampled_from([0, 0, 5, 40]),
        "age": st.integers(0, 30), "admitted": st.booleans(), "arrival": st.integers(0, 3),
        "prompt": st.sampled_from([1, 5, 200]), "priority": st.integers(-1, 1),
        "allowed": st.sampled_from([0.0, 0.0, 0.5, 40.0]),
    }
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(specs, st.lists(requests, min_size=1, max_size=8))
def test_rank_agrees_with_what_an_engine_reads_from_the_board(spec: PolicySpec, given_: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), spec)
        bench.pipeline.queue_estimate.wait_s, bench.pipeline.queue_estimate.token_s = 6.0, 0.02
        try:
            for slot, request in enumerate(given_):
                bench.apply(
                    started(
                        slot + 1,
                        slot,
                        prompt_tokens=request["prompt"],
                        exact_output_tokens=request["exact"],
                        initial_prediction=request["initial"],
                    )
                )
            bench.pipeline.queue_estimate.look = lambda *seen: None  # what is stated of the queue stays
            bench.pipeline.step()
            board, header = bench.board(*range(len(given_))), bench.header()
        finally:
            bench.close()
    # The engine's reading: a row of another key ranks by the mean of initial predictions.
    known = board["key"] == np.arange(1, len(given_) + 1)
    # Levels of mlfq are published when an age is seen; here none was since the start.
    age = np.array([0 if spec.name == "mlfq" else request["age"] for request in given_])
    mean = header.mean_initial
    rank = np.where(known, board["rank"], mean)
    slope = np.where(known, board["slope"], 0.0 if spec.name in ("fcfs", "sjf") else 1.0)
    cutoff = np.where(known, board["cutoff"], math.floor(spec.c * mean) if spec.preempts else 2**32 - 1)
    admitted = np.array([request["admitted"] for request in given_])
    if spec.name == "fcfs":
        rank = np.zeros(len(given_))
    arrival = np.array([float(request["arrival"]) for request in given_])
    values = {k: v for k, v in vars(header).items() if k not in ("epoch", "heartbeat_ns", "generation")}
    effective = effective_ranks(
        Terms(**values),
        size=rank_now(rank, slope, np.zeros(len(given_)), age),
        protected=is_protected(admitted, age, cutoff),
        arrival_s=arrival,
        deadline_s=arrival + [request["allowed"] or math.inf for request in given_],
        priority=np.array([request["priority"] for request in given_]),
        uncomputed_tokens=np.array([0 if r["admitted"] else r["prompt"] for r in given_]),
    )
    order = serving_order(effective, arrival)
    ranked = rank_candidates(
        spec,
        [
            Candidate(
                id=f"{slot}", arrival_time_s=float(r["arrival"]), age=int(age[slot]), admitted=r["admitted"],
                initial_prediction=r["initial"], exact_output_tokens=r["exact"], prompt_tokens=r["prompt"],
                priority=r["priority"], deadline_s=r["allowed"],
            )
            for slot, r in enumerate(given_)
        ],
        mean,
        wait_s=6.0,
        token_s=0.02,
    )  # fmt: skip
    assert [item.id for item in ranked] == [str(slot) for slot in order]
    by_id = {item.id: item for item in ranked}
    for slot in range(len(given_)):
        # Rank counts seconds from the earliest arrival.
        since = effective[slot] - (arrival.min() if spec.boosts else 0.0)
        assert by_id[str(slot)].rank == pytest.approx(since, rel=1e-5, abs=1e-5)


def test_refined_prediction_of_the_caller_decides_under_trail() -> None:
    longer = Candidate(id="longer", age=10, initial_prediction=20.0, predicted_remaining=90.0)
    shorter = Candidate(id="shorter", age=10, initial_prediction=100.0, predicted_remaining=5.0)
    ranked = rank_candidates(PolicySpec("trail", 1.0), [longer, shorter], 50.0)
    assert [(item.id, item.rank) for item in ranked] == [("shorter", 5.0), ("longer", 90.0)]
    by_prompt = rank_candidates(PolicySpec("trail-prompt", 1.0), [longer, shorter], 50.0)
    assert [(item.id, item.rank) for item in by_prompt] == [("longer", 10.0), ("shorter", 90.0)]


def test_ties_go_by_arrival_then_by_id() -> None:
    tied = [
        Candidate(id=i, arrival_time_s=t, initial_prediction=9) for i, t in (("b", 2), ("c", 1), ("a", 2))
    ]
    assert [item.id for item in rank_candidates(PolicySpec(), tied, 1.0)] == ["c", "a", "b"]


def test_preemptible_means_running_unprotected_and_a_policy_that_preempts() -> None:
    young = Candidate(id="young", age=3, admitted=True, initial_prediction=10)
    old = Candidate(id="old", age=8, admitted=True, initial_prediction=10)
    waiting = Candidate(id="waiting", age=8, admitted=False, initial_prediction=10)
    found = {i.id: i for i in rank_candidates(PolicySpec("trail", 0.5), [young, old, waiting], 1.0)}
    assert {name: item.preemptible for name, item in found.items()} == {
        "young": True, "old": False, "waiting": False,
    }  # fmt: skip
    assert found["old"].rank == -math.inf
    assert found["waiting"].rank == 2, "what was never admitted is not protected"
    assert not any(i.preemptible for i in rank_candidates(PolicySpec("sjf"), [young], 1.0))


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [
        (Candidate(id=""), "candidates[1].id is empty"),
        (Candidate(id="good"), "candidates[1].id repeats 'good'"),
        (Candidate(id="x", initial_prediction=math.nan), "candidates[1].initial_prediction is nan"),
        (Candidate(id="x", predicted_remaining=-1.0), "candidates[1].predicted_remaining is -1.0"),
        (Candidate(id="x", predicted_remaining=math.inf), "candidates[1].predicted_remaining is inf"),
        (Candidate(id="x", arrival_time_s=math.nan), "candidates[1].arrival_time_s is nan"),
        (Candidate(id="x", deadline_s=-1.0), "candidates[1].deadline_s is -1.0"),
        (Candidate(id="x", deadline_s=math.inf), "candidates[1].deadline_s is inf"),
    ],
)
def test_invalid_candidate_is_named(candidate: Candidate, sentence: str) -> None:
    with pytest.raises(InvalidCandidate) as refused:
        rank_candidates(PolicySpec(), [Candidate(id="good"), candidate], 1.0)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("stated", [{"wait_s": -1.0}, {"token_s": math.nan}, {"wait_s": math.inf}])
def test_times_that_are_none_are_named(stated: dict[str, float]) -> None:
    with pytest.raises(InvalidCandidate, match=f"{next(iter(stated))} is"):
        rank_candidates(PolicySpec("adaptive"), [Candidate(id="good")], 1.0, **stated)


def test_who_gave_way_often_enough_is_not_preemptible_and_keeps_its_turn() -> None:
    spec = PolicySpec("adaptive", c=1.0, max_preemptions=1)
    gave = Candidate(id="gave", age=3, admitted=True, initial_prediction=90, preemptions=1, arrival_time_s=1)
    first = Candidate(id="first", age=3, admitted=True, initial_prediction=90)
    ranked = rank_candidates(spec, [gave, first], 1.0, wait_s=1.0)
    assert [(item.id, item.preemptible) for item in ranked] == [("first", True), ("gave", False)]


def test_nothing_ranks_as_nothing() -> None:
    assert rank_candidates(PolicySpec(), [], 1.0) == []
