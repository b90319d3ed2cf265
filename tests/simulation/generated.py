"""Generated workloads and engines, small enough for the reference engine."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Exact, Lognormal, Predictions
from trail.simulation.engine.steptime import StepModel, StepTicks
from trail.simulation.engine.workload import Workload

POLICIES = (
    "fcfs",
    "fcfs-reserve16",
    "sjf",
    "sjf-reserve4",
    "trail-prompt",
    "trail-c0",
    "trail-c0.3",
    "trail-c1",
    "trail-c1-ratio2-limit1-reserve8",
    "trail-c0.5-gittins",
    "oracle-c0.8",
    "mlfq",
    "adaptive",
    "adaptive-c1",
    "adaptive-c1-k0",
    "adaptive-c1-kinf",
    "adaptive-c1-k4-limitoff-ratio1-reserveoff",
)

TICKS = st.sampled_from(
    [
        StepTicks.of(StepModel("even", 0.01, 0.0, 0.0, 0.0)),
        StepTicks.of(StepModel("by size", 0.01, 0.001, 0.0005, 0.0)),
        StepTicks.of(StepModel("by context", 0.004, 0.001, 0.002, 0.0001)),
        StepTicks.of(StepModel("by arrivals", 0.004, 0.001, 0.0, 0.0001, 0.007)),
    ]
)


@st.composite
def workloads(draw: st.DrawFn, most: int = 14, longest: int = 40) -> Workload:
    """Few requests on a grid of times, so that arrivals coincide with one another and with steps."""
    n = draw(st.integers(1, most))
    gaps = draw(st.lists(st.sampled_from([0.0, 0.0, 0.01, 0.05, 0.3]), min_size=n, max_size=n))
    prompts = draw(st.lists(st.integers(1, longest), min_size=n, max_size=n))
    outputs = draw(st.lists(st.integers(1, longest), min_size=n, max_size=n))
    return Workload(np.cumsum(gaps), np.array(prompts, np.int64), np.array(outputs, np.int64))


@st.composite
def engines(draw: st.DrawFn, work: Workload) -> EngineConfig:
    """An engine that can serve `work`, with much memory or with hardly enough."""
    size = draw(st.sampled_from([1, 4, 16]))
    need = int((-(-(work.prompt_tokens + work.output_tokens) // size)).max())
    whole = int((work.prompt_tokens + work.output_tokens).max())
    chunked = draw(st.booleans())
    return EngineConfig(
        slots=draw(st.integers(1, 6)),
        token_budget=draw(st.integers(2, 40)) if chunked else whole + draw(st.integers(0, 40)),
        kv_blocks=draw(st.none() | st.integers(need, 3 * need)),
        block_tokens=size,
        prefix_cache=draw(st.booleans()),
        chunked_prefill=chunked,
        whole_prompt_must_fit=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
        prediction_lag=draw(st.sampled_from([0, 1, 3])),
        initial_lag=draw(st.sampled_from([0, 0, 1, 4])),
    )


@st.composite
def tight_cases(draw: st.DrawFn) -> tuple[Workload, EngineConfig, StepTicks, Predictions]:
    """Long answers to short prompts, then short answers to long prompts, in hardly enough memory."""
    kinds = draw(st.lists(st.booleans(), min_size=4, max_size=16))
    small, large = st.integers(1, 4), st.integers(15, 40)
    prompts = [draw(small if kind else large) for kind in kinds]
    outputs = [draw(large if kind else small) for kind in kinds]
    gaps = draw(st.lists(st.sampled_from([0.0, 0.02, 0.1]), min_size=len(kinds), max_size=len(kinds)))
    work = Workload(np.cumsum(gaps), np.array(prompts, np.int64), np.array(outputs, np.int64))
    size = draw(st.sampled_from([1, 4]))
    need = int((-(-(work.prompt_tokens + work.output_tokens) // size)).max())
    config = EngineConfig(
        slots=draw(st.integers(3, 8)),
        token_budget=draw(st.sampled_from([10, 60])),
        kv_blocks=need + draw(st.integers(0, need // 2)),
        block_tokens=size,
        prefix_cache=draw(st.booleans()),
        whole_prompt_must_fit=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )
    predictor = draw(st.sampled_from([Exact(), Lognormal(0.3, 0.2, 0.9)]))
    predictions = predictor.predict(work, 5, np.random.default_rng(draw(st.integers(0, 2**16))))
    return work, config, draw(TICKS), predictions


@st.composite
def cases(draw: st.DrawFn, **bounds: Any) -> tuple[Workload, EngineConfig, StepTicks, Predictions]:
    """A workload, an engine, its step times, and what is predicted."""
    work = draw(workloads(**bounds))
    predictor = draw(st.sampled_from([Exact(), Lognormal(0.6, 0.4, 0.9)]))
    every, seed = draw(st.sampled_from([1, 5, 10])), draw(st.integers(0, 2**16))
    predictions = predictor.predict(work, every, np.random.default_rng(seed))
    return work, draw(engines(work)), draw(TICKS), predictions
