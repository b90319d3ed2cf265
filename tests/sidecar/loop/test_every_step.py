"""What the profiles of `pacing` promise, by the real loop, ring and board on a simulated clock.

An engine of one request ends a step every 10 ms or more and exports its newest token, no more often than the
loop says it looks. Hearing of events and predicting take time, and nothing else does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_kit import HIDDEN, LAYER, Bench, TellingProbe, started, vector

from trail.policy.spec import PolicySpec
from trail.sidecar.loop import loop as loop_module
from trail.sidecar.loop.loop import Delivery, SidecarLoop
from trail.sidecar.pacing import OWN_CORES, SHARED_CORES, Pacing
from trail.wire.frames import Kind
from trail.wire.lifecycle import Hello, Load

KEY, SLOT, PROMPT_TOKENS = 1, 0, 5
TRAIL = PolicySpec("trail")
LONGEST_ROUND_S = 3e-3
"""Up to which `own-cores` keeps its promise."""


@dataclass(frozen=True)
class Course:
    """What happens: how long steps are, a prediction, and the hearing of events; how often events come."""

    steps_s: list[float]
    predict_s: float
    hear_s: float = 0.0
    events_every_s: float = math.inf
    waiting: int = 1
    spec: PolicySpec = TRAIL


class World(TellingProbe):
    """The clock and everything around the loop: engine, probe, inbox, and the end after the last step."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.now_s = 0.0
        self.late: list[int] = []
        self.bench: Bench
        self._course = course
        self._ends_s = iter(np.cumsum(course.steps_s).tolist())
        self._end_s: float = next(self._ends_s)
        self._events_s = course.events_every_s
        self._exported_s = -1.0
        self._age = 0

    def predict(self, *batch: Any) -> np.ndarray:
        self._pass(self._course.predict_s)
        return super().predict(*batch)

    def drain(self, _most: int) -> list[Delivery]:
        if self.now_s < self._events_s:
            return []
        self._events_s = self.now_s + self._course.events_every_s
        self._pass(self._course.hear_s)
        return [Delivery(0, 1, ())]

    def is_set(self) -> bool:
        return self._end_s == math.inf

    def wait(self, timeout_s: float) -> bool:
        self._pass(timeout_s)
        return self.is_set()

    def _pass(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._end_s <= until_s:
            self._set(self._end_s)
            self._end_step()
            self._end_s = next(self._ends_s, math.inf)
        self._set(until_s)

    def _set(self, now_s: float) -> None:
        self.now_s = now_s
        self.bench.now_ns = int(now_s * 1e9)

    def _end_step(self) -> None:
        """Notes a token that was not predicted from by the end of the next step; exports as the worker."""
        if self._age and int(self.bench.board(SLOT)[0]["age"]) < self._age:
            self.late.append(self._age)
        self._age += 1
        if self.now_s - self._exported_s >= self.bench.writer.reader_interval_ns() / 1e9:
            self._exported_s = self.now_s
            self.bench.export((KEY, PROMPT_TOKENS + self._age, Kind.TOKEN, vector(1, 1, 1, 1)))


@pytest.fixture
def late(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Pacing, Course], list[int]]:
    """Runs the loop; the ages that were not predicted from in time."""

    def run(pacing: Pacing, course: Course) -> list[int]:
        world = World(course)
        bench = world.bench = make_bench(course.spec, probe=world, pacing=pacing)
        bench.now_ns = 0
        bench.apply(
            Hello(engine=0, hidden_size=HIDDEN, layers=(LAYER,), max_running=4),
            started(KEY, SLOT, PROMPT_TOKENS, max_tokens=10_000),
            Load(waiting=course.waiting, running=1),
        )
        clock = SimpleNamespace(
            monotonic=lambda: world.now_s, thread_time=lambda: world.now_s,
            monotonic_ns=lambda: int(world.now_s * 1e9),
        )  # fmt: skip
        loop = SidecarLoop({0: bench.pipeline}, world, None, bench.telemetry.metrics, pacing)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(loop_module, "time", clock)
            loop.run(world)  # type: ignore[arg-type]  # as much of an Event as the loop asks for
        return world.late

    return run


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first_s=st.floats(0, 10e-3),
    steps_s=st.lists(st.just(10e-3) | st.floats(10e-3, 30e-3), min_size=10, max_size=20),
    round_s=st.floats(20e-6, LONGEST_ROUND_S),
    hearing=st.floats(0, 1),
    events_every_s=st.just(math.inf) | st.floats(1e-3, 30e-3),
    waiting=st.integers(0, 2),
)
def test_own_cores_predict_from_every_step_of_10_ms_or_more(
    late: Callable[[Pacing, Course], list[int]], first_s: float, steps_s: list[float], round_s: float,
    hearing: float, events_every_s: float, waiting: int,
) -> None:  # fmt: skip
    hear_s = hearing * round_s
    course = Course([first_s, *steps_s], round_s - hear_s, hear_s, events_every_s, waiting)
    assert late(OWN_CORES, course) == []


@pytest.mark.parametrize(
    ("waiting", "spec"),
    [(1, TRAIL), (0, TRAIL), (1, PolicySpec("trail", c=0.0))],
    ids=["somebody waits", "nobody waits", "nobody could give way"],
)
def test_own_cores_keep_up_with_steps_of_10_ms_whatever_depends_on_it(
    late: Callable[[Pacing, Course], list[int]], waiting: int, spec: PolicySpec
) -> None:
    """Longer than it takes to become idle where cores are shared."""
    for round_s in (0.1e-3, 1e-3, LONGEST_ROUND_S):
        assert late(OWN_CORES, Course([7e-3] + [10e-3] * 100, round_s, waiting=waiting, spec=spec)) == []


@pytest.mark.parametrize("waiting", [0, 1])
def test_shared_cores_leave_most_of_such_steps_to_vllm(
    late: Callable[[Pacing, Course], list[int]], waiting: int
) -> None:
    steps = 100
    assert steps / 2 < len(late(SHARED_CORES, Course([10e-3] * steps, 1e-3, waiting=waiting))) < steps
