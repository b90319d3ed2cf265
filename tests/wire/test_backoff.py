"""Pauses grow up to a limit, and what has lived for long begins anew."""

from itertools import accumulate, repeat

import pytest

from trail.engine.report import stream
from trail.serving import stack
from trail.sidecar.process import supervisor
from trail.wire.backoff import Backoff
from trail_operator.reconcile import work


@pytest.mark.parametrize(
    ("backoff", "pauses_s"),
    [
        (supervisor.RESTARTS, [1, 2, 4, 8, 16, 32, 60, 60]),
        (stack.RESTARTS, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 8.0, 8.0]),
        (work.RETRIES, [0.5, 1, 2, 4, 8, 16, 32, 60, 60]),
        (stream.RETRIES, [0.2, 0.3, 0.45, 0.675, 1.0, 1.0]),
    ],
)
def test_pauses_grow_up_to_the_longest(backoff: Backoff, pauses_s: list[float]) -> None:
    lived_s = 0.1
    grown = accumulate(repeat(lived_s, len(pauses_s)), backoff.after, initial=0.0)
    assert list(grown)[1:] == pytest.approx(pauses_s)


@pytest.mark.parametrize(("backoff", "healthy_s"), [(supervisor.RESTARTS, 120.0), (stack.RESTARTS, 30.0)])
def test_a_long_life_forgives(backoff: Backoff, healthy_s: float) -> None:
    assert backoff.after(4.0, healthy_s) == backoff.first_s
    assert backoff.after(4.0, healthy_s - 0.1) == 8.0
