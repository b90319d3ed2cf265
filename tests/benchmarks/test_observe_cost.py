"""What tracing costs: the client's trace contexts, and the figures of the rounds. Serving is not tested."""

import numpy as np
import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from benchmarks.observe.cost import Block, summarise, traceparent


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_share_of_sampled_contexts_is_the_one_asked_for(share: float) -> None:
    rng = np.random.default_rng(1)
    spans = [
        get_current_span(TraceContextTextMapPropagator().extract({"traceparent": traceparent(rng, share)}))
        for _ in range(2000)
    ]
    contexts = [span.get_span_context() for span in spans]
    assert all(context.is_valid for context in contexts)
    assert len({context.trace_id for context in contexts}) == 2000
    assert np.mean([context.trace_flags.sampled for context in contexts]) == pytest.approx(share, abs=0.03)


def rounds(tenth: float, whole: float) -> list[dict[str, Block]]:
    """Three rounds on a machine that gets slower, in which tracing makes each arm slower by a factor."""
    out = []
    for drift in (1.0, 1.3, 2.0):
        seconds = {"off": drift, "tenth": drift / tenth, "all": drift / whole}
        out.append({arm: Block(arm, 1000, s, 2 * s, 0.1, 0.01 * s) for arm, s in seconds.items()})
    return out


def test_ratios_are_taken_within_a_round() -> None:
    found = summarise(rounds(0.995, 0.98))
    assert found["tenth"]["throughput"]["mean"] == pytest.approx(0.995)
    assert found["all"]["tokens_per_cpu"]["low"] == pytest.approx(0.98)
    assert found["tenth"]["reached"]
    assert found["all"]["reached"]
    assert found["step_ms"] == pytest.approx([16, 1.3 * 16, 32])
    assert found["idle_cpu_share"] == pytest.approx(0.01)


def test_each_target_has_its_own_limit() -> None:
    found = summarise(rounds(0.98, 0.96))
    assert not found["tenth"]["reached"]
    assert not found["all"]["reached"]
