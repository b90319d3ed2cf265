"""The simulated queue against a slow one that asks the scheduler's own rules at every token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.policy import decide
from trail.simulation.plan.queue_sim import Requests, fcfs_response_times, response_times

REQUEST = st.tuples(st.integers(0, 5), st.integers(1, 8), st.integers(0, 8))
REQUESTS = st.lists(REQUEST, min_size=1, max_size=12)
C = st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.8, 1.0])


def made(rows: list[tuple[int, int, int]]) -> Requests:
    gap, size, prediction = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return Requests(np.cumsum(gap), size, prediction)


def slow_response_times(requests: Requests, c: float) -> list[float]:
    """One token at a time for the first in the policy's serving order."""
    n = len(requests.size)
    age, admitted, end = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool), np.zeros(n)
    now, arrival = 0, np.arange(n)
    while (age < requests.size).any():
        here = np.flatnonzero((requests.arrival <= now) & (age < requests.size))
        if len(here):
            protected = decide.is_protected(admitted[here], age[here], c * requests.prediction[here])
            rank = np.maximum(requests.prediction[here] - age[here], 0.0)
            order = decide.serving_order(decide.effective_rank(rank, protected), arrival[here])
            served = here[order[0]]
            admitted[served] = True
            age[served] += 1
            if age[served] == requests.size[served]:
                end[served] = now + 1
        now += 1
    return (end - requests.arrival).tolist()


@given(REQUESTS, C)
def test_every_request_ends_when_the_policys_rules_end_it(rows: list[tuple[int, int, int]], c: float) -> None:
    requests = made(rows)
    assert response_times(requests, c).tolist() == slow_response_times(requests, c)


@given(REQUESTS)
def test_first_come_first_served_is_one_after_the_other(rows: list[tuple[int, int, int]]) -> None:
    requests = made(rows)
    end, expected = 0.0, []
    for arrival, size in zip(requests.arrival, requests.size, strict=True):
        end = max(end, arrival) + size
        expected.append(end - arrival)
    assert fcfs_response_times(requests).tolist() == expected


@given(REQUESTS, C)
def test_equal_predictions_are_first_come_first_served(rows: list[tuple[int, int, int]], c: float) -> None:
    requests = made(rows)
    equal = Requests(requests.arrival, requests.size, np.full(len(rows), 4.0))
    assert response_times(equal, c).tolist() == fcfs_response_times(requests).tolist()


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), C)
def test_work_is_conserved(n: int, seed: int, c: float) -> None:
    """The server rests only when nobody is there, so that busy periods end alike under every policy."""
    rng = np.random.default_rng(seed)
    size = rng.exponential(size=n)
    requests = Requests(np.cumsum(rng.exponential(1.3, n)), size, size * rng.exponential(size=n))
    ends = {
        name: requests.arrival + times
        for name, times in (("c", response_times(requests, c)), ("fcfs", fcfs_response_times(requests)))
    }
    quiet = np.flatnonzero(np.append(requests.arrival[1:] >= ends["fcfs"][:-1], True))
    for last in quiet:
        assert ends["c"][: last + 1].max() == pytest.approx(ends["fcfs"][last])
    assert (response_times(requests, c) >= size * (1 - 1e-9)).all()
