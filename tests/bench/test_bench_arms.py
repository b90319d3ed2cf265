"""Which policies the benchmark's arms stand for, and which of them run on vLLM without TRAIL."""

import math

from trail.bench.config import parse_arms


def test_stock_is_the_bare_name_alone() -> None:
    arms = parse_arms("fcfs,fcfs-reserve16,adaptive-k0,adaptive-kinf,mlfq,oracle-c0")
    assert [arm.name for arm in arms if arm.stock] == ["fcfs"]
    assert [arm.name for arm in arms if arm.needs_lengths] == ["oracle-c0"]
    by_name = {arm.name: arm.policy for arm in arms}
    limited = by_name["fcfs-reserve16"]
    assert (limited.orders, limited.preempts, limited.kv_reserve_tokens) == (False, False, 16.0)
    assert (by_name["adaptive-k0"].kappa, by_name["adaptive-kinf"].kappa) == (0.0, math.inf)
