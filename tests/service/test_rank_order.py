"""`Rank` orders as the board does, and refuses what it cannot rank by naming the field."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_kit import Bench, started

from trail.policy.decide import effective_rank, is_protected, rank_now, serving_order
from trail.policy.spec import POLICY_NAMES, PolicySpec
from trail.service.ranking import Candidate, InvalidCandidate, rank_candidates

specs = st.builds(PolicySpec, st.sampled_from(POLICY_NAMES), st.sampled_from([0.0, 0.3, 0.8, 1.0]))
# Lengths that float32 holds exactly, so that ties on the board are ties in Rank.
lengths = st.integers(1, 64).map(float)
requests = st.fixed_dictionaries(
    {
        "initial": st.one_of(st.just(0.0), lengths), "exact": st.sampled_from([0, 0, 5, 40]),
        "age": st.integers(0, 30), "admitted": st.booleans(), "arrival": st.integers(0, 3),
    }
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(specs, st.lists(requests, min_size=1, max_size=8))
def test_rank_agrees_with_what_an_engine_reads_from_the_board(spec: PolicySpec, given_: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), spec)
        try:
            for slot, request in enumerate(given_):
                bench.apply(
                    started(slot + 1, slot, exact_output_tokens=request["exact"], initial=request["initial"])
                )
            bench.lane.step()
            board, header = bench.board(*range(len(given_))), bench.header()
        finally:
            bench.close()
    # The engine's reading: a row of another key ranks by the mean of initial predictions.
    known = board["key"] == np.arange(1, len(given_) + 1)
    age = np.array([request["age"] for request in given_])
    mean = header.mean_initial
    rank = np.where(known, board["rank"], mean)
    slope = np.where(known, board["slope"], 0.0 if spec.name in ("fcfs", "sjf") else 1.0)
    cutoff = np.where(known, board["cutoff"], math.floor(spec.c * mean) if spec.preempts else 2**32 - 1)
    protected = is_protected(np.array([r["admitted"] for r in given_]), age, cutoff)
    if spec.name == "fcfs":
        rank = np.zeros(len(given_))
    effective = effective_rank(rank_now(rank, slope, np.zeros(len(given_)), age), protected)
    order = serving_order(effective, np.array([r["arrival"] for r in given_]))
    ranked = rank_candidates(
        spec,
        [
            Candidate(
                id=f"{slot}", arrival_time_s=float(r["arrival"]), age=r["age"], admitted=r["admitted"],
                initial_prediction=r["initial"], exact_output_tokens=r["exact"],
            )
            for slot, r in enumerate(given_)
        ],
        mean,
    )  # fmt: skip
    assert [item.id for item in ranked] == [str(slot) for slot in order]
    by_id = {item.id: item for item in ranked}
    for slot in range(len(given_)):
        assert by_id[str(slot)].rank == pytest.approx(effective[slot], rel=1e-5)
        assert (by_id[str(slot)].rank == -math.inf) == bool(protected[slot])


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
    ],
)
def test_invalid_candidate_is_named(candidate: Candidate, sentence: str) -> None:
    with pytest.raises(InvalidCandidate) as refused:
        rank_candidates(PolicySpec(), [Candidate(id="good"), candidate], 1.0)
    assert sentence in str(refused.value)


def test_nothing_ranks_as_nothing() -> None:
    assert rank_candidates(PolicySpec(), [], 1.0) == []
