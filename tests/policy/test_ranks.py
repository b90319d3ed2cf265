"""Ranks and cut-offs of each policy, against the definition written out request by request."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trail.policy.mlfq import level
from trail.policy.sizes import NEVER, rank_requests
from trail.policy.spec import POLICY_NAMES, PolicySpec

REQUEST = st.tuples(
    st.floats(0, 1e5, width=32), st.floats(0, 1e5, width=32), st.integers(0, 10**5), st.integers(0, 10**5)
)


def reference(
    name: str, c: float, r: float, remaining: float, exact: int, age: int
) -> tuple[float, float, int]:
    if name == "fcfs":
        return 0.0, 0.0, NEVER
    if name == "sjf":
        return r, 0.0, NEVER
    if name in ("trail", "adaptive"):
        return remaining, 1.0, math.floor(c * r)
    total = float(exact) if name == "oracle" and exact > 0 else r
    return max(total - age, 0.0), 1.0, math.floor(c * total)


@given(st.sampled_from(sorted(set(POLICY_NAMES) - {"mlfq"})), st.floats(0, 1), st.lists(REQUEST, max_size=8))
def test_ranks_are_those_of_the_definition(
    name: str, c: float, requests: list[tuple[float, float, int, int]]
) -> None:
    initial, remaining, exact, age = ([row[i] for row in requests] for i in range(4))
    ranks = rank_requests(
        PolicySpec(name=name, c=c), initial=initial, remaining=remaining, exact=exact, age=age
    )
    expected = [reference(name, c, *row) for row in requests]
    np.testing.assert_array_equal(ranks.rank, np.array([e[0] for e in expected], dtype=np.float32))
    np.testing.assert_array_equal(ranks.slope, np.array([e[1] for e in expected], dtype=np.float32))
    np.testing.assert_array_equal(ranks.cutoff, np.array([e[2] for e in expected], dtype=np.uint32))
    assert (ranks.rank.dtype, ranks.slope.dtype, ranks.cutoff.dtype) == (np.float32, np.float32, np.uint32)


def test_the_oracle_uses_the_prediction_where_no_length_is_known() -> None:
    ranks = rank_requests(
        PolicySpec(name="oracle", c=0.5),
        initial=[30.0, 30.0],
        remaining=[1.0, 1.0],
        exact=[0, 100],
        age=[10, 10],
    )
    assert ranks.rank.tolist() == [20.0, 90.0]
    assert ranks.cutoff.tolist() == [15, 50]


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), max_size=8))
def test_mlfq_ranks_by_its_level_and_has_no_cut_off(requests: list[tuple[int, int]]) -> None:
    prompts, ages = [row[0] for row in requests], [row[1] for row in requests]
    nothing = np.zeros(len(requests))
    ranks = rank_requests(
        PolicySpec("mlfq"), initial=nothing, remaining=nothing, exact=nothing, age=ages, prompt_tokens=prompts
    )
    assert ranks.rank.tolist() == level(prompts, ages).tolist()
    assert not ranks.slope.any()
    assert set(ranks.cutoff.tolist()) <= {NEVER}


@given(
    st.sampled_from(["trail", "adaptive"]),
    st.lists(
        st.tuples(st.floats(0, 100, width=32), st.floats(0, 100, width=32) | st.just(math.nan)), max_size=8
    ),
)
def test_the_gittins_index_stands_for_the_prediction_where_there_is_one(
    name: str, requests: list[tuple[float, float]]
) -> None:
    remaining, index = [row[0] for row in requests], [row[1] for row in requests]
    others = {
        "initial": np.full(len(requests), 9.0),
        "exact": np.zeros(len(requests)),
        "age": np.zeros(len(requests)),
    }
    spec = PolicySpec(name, size="gittins")
    ranks = rank_requests(spec, remaining=remaining, gittins=index, **others)
    assert ranks.rank.tolist() == [r if math.isnan(g) else g for r, g in requests]
    assert rank_requests(spec, remaining=remaining, **others).rank.tolist() == remaining
    plain = rank_requests(PolicySpec(name), remaining=remaining, gittins=index, **others)
    assert plain.rank.tolist() == remaining
