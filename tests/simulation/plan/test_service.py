"""A batched engine as one server: Erlang's formula, step models, and how near the latency on slots comes."""

import heapq
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.simulation.engine.steptime import StepModel
from trail.simulation.engine.workload import Pool
from trail.simulation.plan.queue_sim import Requests, fcfs_response_times, response_times
from trail.simulation.plan.service import Service, erlang_c, service_of_steps


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_all_servers_are_busy_as_often_as_erlang_says(servers: int, load: float) -> None:
    offered = servers * load
    busy = offered**servers / factorial(servers) / (1 - load)
    others = sum(offered**k / factorial(k) for k in range(servers))
    assert erlang_c(servers, load) == pytest.approx(busy / (busy + others), rel=1e-9)


def test_one_slot_is_the_queue_itself() -> None:
    assert Service(10.0, 1, "").latency_s(50.0, 3.0, 0.8) == pytest.approx(5.0 + 3.0)
    assert Service(10.0, None, "").latency_s(50.0, 3.0, 0.8) is None


def slot_response_times(requests: Requests, slots: int, c: float | None) -> np.ndarray:
    """`slots` servers of rate 1: the policy's rules where one is wanted, else first come first served."""
    arrival, size, prediction = (v.tolist() for v in (requests.arrival, requests.size, requests.prediction))
    left, end, waiting = list(size), [0.0] * len(size), list[tuple[float, int]]()
    running: dict[int, tuple[float, float]] = {}
    now, i = 0.0, 0
    while i < len(size) or running:
        first = min(running, key=lambda j: running[j][0] + left[j], default=-1)
        ends = running[first][0] + left[first] if running else np.inf
        if i == len(size) or ends <= arrival[i]:
            end[first] = now = ends
            del running[first]
            if waiting:
                rank, j = heapq.heappop(waiting)
                running[j] = (now, rank)
            continue
        now, new = arrival[i], i
        i += 1
        rank = float(new) if c is None else prediction[new]
        if len(running) == slots and c is not None:
            ranks = {
                j: rank - (now - since)
                for j, (since, rank) in running.items()
                if size[j] - left[j] + now - since < c * prediction[j]
            }
            worst = max(ranks, key=lambda j: ranks[j], default=-1)
            if ranks and ranks[worst] > rank:
                left[worst] -= now - running.pop(worst)[0]
                heapq.heappush(waiting, (ranks[worst], worst))
        if len(running) < slots:
            running[new] = (now, rank)
        else:
            heapq.heappush(waiting, (rank, new))
    return np.array(end) - requests.arrival


@pytest.mark.parametrize("slots", [1, 4, 16])
@pytest.mark.parametrize("c", [None, 0.0, 0.2, 1.0])
def test_latency_on_slots_is_near_that_of_simulated_slots(slots: int, c: float | None) -> None:
    """An approximation: within a tenth at load 0.9 for lognormal lengths and noisy predictions.

    The one fast server gets the same requests, so that chance moves both alike.
    """
    rng, n, load = np.random.default_rng(7), 60_000, 0.9
    size = np.exp(rng.standard_normal(n) - 0.5)
    prediction = size * np.exp(0.6 * rng.standard_normal(n))
    requests = Requests(np.cumsum(rng.exponential(1 / load / slots, n)), size, prediction)
    latency = slot_response_times(requests, slots, c).mean()
    fast = Requests(requests.arrival, size / slots, prediction / slots)
    wait = (fcfs_response_times(fast) if c is None else response_times(fast, c)).mean() - size.mean() / slots
    estimate = Service(float(slots), slots, "").latency_s(float(size.mean()), float(wait), load)
    assert estimate == pytest.approx(latency, rel=1e-9 if slots == 1 else 0.1)


def test_a_step_model_gives_the_rate_with_all_slots_taken() -> None:
    pool = Pool(np.array([100, 300]), np.array([10, 40]))
    model = StepModel("flat", fixed_s=0.01, sequence_s=0.001, prefill_token_s=1e-4, kv_token_s=0.0)
    # 8 tokens a step; 200 prompt tokens for 25 output tokens.
    assert service_of_steps(model, 8, pool).tokens_per_s == pytest.approx(8 / (0.01 + 0.008 + 64e-4))
    reading = StepModel("reading", fixed_s=1e-9, sequence_s=0.0, prefill_token_s=0.0, kv_token_s=1e-6)
    contexts = [100 + i for i in range(1, 11)] + [300 + i for i in range(1, 41)]
    assert service_of_steps(reading, 8, pool).tokens_per_s == pytest.approx(1e6 / np.mean(contexts), rel=1e-3)


@pytest.mark.parametrize(("rate", "slots"), [(0.0, 4), (float("nan"), 4), (10.0, 0)])
def test_a_replica_that_makes_nothing_is_refused(rate: float, slots: int) -> None:
    with pytest.raises(ValueError, match="a replica"):
        Service(rate, slots, "")
