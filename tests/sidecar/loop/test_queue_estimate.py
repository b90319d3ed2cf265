"""What a pipeline states of its queue's length and its step time, and how seldom it states it anew."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_kit import BINS, Bench, started, vector

from trail.policy.gittins import gittins_index
from trail.policy.guard import Guard
from trail.policy.queue_estimate import MOVED, QueueEstimate
from trail.policy.spec import PolicySpec
from trail.sidecar.pacing import SHARED_CORES
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished, Hello, Load

SECOND_NS = 10**9
LOOK_NS = int(SHARED_CORES.queue_look_every_s * 1e9)


def steps_of(first: int, count: int, at_ns: int, each_ns: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(first, first + count)
    return numbers, at_ns + each_ns * np.arange(count)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_what_is_stated_is_what_is_measured_within_a_share(queued: list[float]) -> None:
    estimate, twin, stated = QueueEstimate(0.1), Guard(), []
    for i, tokens in enumerate(queued):
        estimate.look(i * SECOND_NS, tokens, 100.0 * i)
        measured = twin.observe(float(i), tokens, 100.0 * i)
        assert abs(estimate.wait_s - measured) <= MOVED * estimate.wait_s + 1e-3
        stated.append(estimate.wait_s)
    for before, after in itertools.pairwise(stated):
        assert after == before or abs(after - before) > MOVED * before


def test_the_queue_is_looked_at_ten_times_a_second() -> None:
    estimate = QueueEstimate(0.1)
    assert estimate.due(5)
    estimate.look(5, 0.0, 0.0)
    assert not estimate.due(5 + LOOK_NS - 1)
    assert estimate.due(5 + LOOK_NS)


def test_step_time_is_that_of_steps_while_requests_run() -> None:
    estimate = QueueEstimate(0.1)
    estimate.stepped(*steps_of(1, 10, 0, 20_000_000))
    estimate.rested()
    estimate.stepped(*steps_of(11, 10, 3600 * SECOND_NS, 20_000_000))  # an hour later
    estimate.stepped(*steps_of(21, 5, 3600 * SECOND_NS + 200_000_000, 20_000_000))
    estimate.look(0, 0.0, 0.0)
    assert estimate.token_s == pytest.approx(0.02)


def test_step_time_follows_a_slower_engine_and_survives_steps_that_count_anew() -> None:
    estimate = QueueEstimate(0.1)
    estimate.stepped(*steps_of(1, 100, 0, 10_000_000))
    estimate.stepped(*steps_of(1, 400, 10 * SECOND_NS, 40_000_000))
    estimate.stepped(*steps_of(401, 400, 26 * SECOND_NS, 40_000_000))
    estimate.look(0, 0.0, 0.0)
    assert estimate.token_s == pytest.approx(0.04)


def queue_up(bench: Bench, seconds: float, waiting: int) -> None:
    """Request 1 generates 20 tokens a second while `waiting` others wait."""
    for _ in range(round(seconds * 10)):
        bench.now_ns += LOOK_NS
        position = 5 + 2 * (bench.steps + 1)
        bench.apply(Load(waiting=waiting, running=1))
        bench.export((1, position, Kind.TOKEN, vector(1, 1, 1, 1)))
        bench.pipeline.step()


@pytest.fixture
def queue(make_bench: Callable[..., Bench]) -> Callable[[PolicySpec], Bench]:
    """A pipeline with one request that runs and four that wait, each predicted at 50 tokens."""

    def make(spec: PolicySpec) -> Bench:
        bench = make_bench(spec)
        bench.apply(*(started(key, key, max_tokens=4000) for key in range(1, 6)))
        for key in range(1, 6):
            bench.pipeline.tracker.set_prompt_prediction(key, 50.0)
        return bench

    return make


def test_the_board_states_how_long_the_queue_is(queue: Callable[[PolicySpec], Bench]) -> None:
    bench = queue(PolicySpec("adaptive"))
    queue_up(bench, 5.0, waiting=4)
    header = bench.header()
    assert header.boost
    assert header.wait_s == pytest.approx(4 * 50 / 20, rel=0.1)
    assert (header.kappa, header.preempt_ratio, header.max_preemptions) == (1.0, 2.0, 1)
    assert header.kv_reserve_tokens == 16.0


def test_other_policies_cause_no_update_of_the_board_for_it(queue: Callable[[PolicySpec], Bench]) -> None:
    bench = queue(PolicySpec("trail"))
    queue_up(bench, 3.0, waiting=4)
    assert bench.pipeline.queue_estimate.wait_s > 0
    assert (bench.header().wait_s, bench.header().token_s) == (0.0, 0.0)


def test_the_board_is_updated_for_the_queue_only_when_it_has_moved(
    queue: Callable[[PolicySpec], Bench],
) -> None:
    bench = queue(PolicySpec("adaptive"))
    queue_up(bench, 5.0, waiting=4)
    bench.apply(Load(waiting=0, running=1))
    before, updates = bench.reader.update, 0
    for _ in range(1800):  # three minutes without frames or queue: decay by a factor e
        bench.now_ns += LOOK_NS
        bench.pipeline.step()
        updates += bench.reader.update != before
        before = bench.reader.update
    assert bench.header().wait_s == pytest.approx(10 / math.e, rel=0.2)
    assert updates <= 1 / MOVED + 1


def test_a_pipeline_with_a_problem_asks_for_nothing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(PolicySpec("adaptive"))
    bench.pipeline.apply(Hello(engine=0, hidden_size=999), 2)
    bench.pipeline.step()
    header = bench.header()
    assert (header.order, header.preempt, header.kv_reserve_tokens) == (False, False, -1.0)


def test_generated_tokens_never_fall_and_count_what_ran_here(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(PolicySpec("adaptive"))
    tracker = bench.pipeline.tracker
    bench.apply(started(1, 0, age=40, initial_prediction=90.0), started(2, 1))
    assert tracker.generated_tokens == 0, "forty were generated before"
    bench.export((1, 5 + 43, Kind.TOKEN, vector(1, 0, 0, 0)), (2, 5 + 3, Kind.TOKEN, vector(1, 0, 0, 0)))
    bench.pipeline.step()
    assert tracker.generated_tokens == 43 - 39 + 3
    bench.apply(Finished(key=1, slot=0, output_tokens=50))
    assert tracker.generated_tokens == 50 - 39 + 3
    bench.pipeline.apply(Hello(engine=0), 2)
    assert tracker.generated_tokens == 50 - 39 + 3


def test_waiting_requests_count_as_those_that_have_not_been_seen_to_run(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(PolicySpec("adaptive"))
    tracker = bench.pipeline.tracker
    assert tracker.queued_tokens(3) == 0.0
    bench.apply(started(1, 0, initial_prediction=10.0), started(2, 1, initial_prediction=50.0), started(3, 2))
    bench.export((1, 5, Kind.PROMPT, vector(0, 0, 0, 1)))
    bench.pipeline.step()
    # Of 2 fifty tokens are predicted, of 3 nothing: it counts as the mean, (10 + 50) / 2.
    assert tracker.queued_tokens(4) == pytest.approx(4 * (50 + 30) / 2)
    assert tracker.queued_tokens(0) == 0.0
    bench.apply(Finished(key=2, slot=1, output_tokens=1), Finished(key=3, slot=2, output_tokens=1))
    assert tracker.queued_tokens(2) == pytest.approx(2 * tracker.remaining[0])


def test_gittins_is_read_from_what_is_believed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(PolicySpec("adaptive", size="gittins"))
    bench.apply(started(1, 0), started(2, 1, max_tokens=3), started(3, 2, initial_prediction=33.0))
    belief = [0.7, 0.0, 0.0, 0.3]
    for key in (1, 2):
        bench.export((key, 5, Kind.PROMPT, vector(*belief)))
    bench.pipeline.step()
    ranks = bench.board(0, 1, 2)["rank"]
    assert ranks[0] == pytest.approx(gittins_index([belief], BINS.edges)[0])
    assert ranks[0] < bench.board(0)[0]["remaining"]
    assert ranks[1:].tolist() == [3.0, 33.0], (
        "at most what is left to generate; without a belief the prediction"
    )
