"""While nobody waits for an engine predictions rest, and they are there when somebody does."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_kit import BINS, HIDDEN, Bench, rows, started, until, vector

from trail.policy.spec import PolicySpec
from trail.sidecar.loop.loop import Delivery, Inbox, SidecarLoop
from trail.sidecar.loop.prompting import PromptWorker
from trail.sidecar.loop.rests import KV_FULL, Idle
from trail.sidecar.pacing import SHARED_CORES
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished, Hello, Load, StreamEnded

P0 = vector(0.1, 0.2, 0.3, 0.4)
SLOTS = 4
AFTER_NS = int(SHARED_CORES.idle_after_s * 1e9)
REST_S = SHARED_CORES.loop_rest_unhurried_s


class CountingEncoder:
    """Predicts the first bin for every prompt and remembers the prompts."""

    def __init__(self) -> None:
        self.prompts: list[tuple[int, ...]] = []

    def predict(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        self.prompts += [tuple(prompt) for prompt in prompts]
        return np.eye(BINS.k, dtype=np.float32)[[0] * len(prompts)]


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A pipeline whose engine runs four requests at most."""
    bench = make_bench()
    bench.apply(Hello(engine=0, hidden_size=HIDDEN, layers=(2,), max_running=SLOTS))
    return bench


def pass_time(bench: Bench, ns: int = AFTER_NS) -> None:
    bench.now_ns += ns


def grow_idle(bench: Bench) -> None:
    assert not bench.pipeline.look_idle()
    pass_time(bench)
    assert bench.pipeline.look_idle()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2 * AFTER_NS), st.integers(0, 6), st.integers(0, 2), st.floats(0, 1),
        ),
        min_size=1,
        max_size=30,
    )
)  # fmt: skip
def test_idle_is_as_long_a_time_in_which_nobody_waited(looks: list[tuple[int, int, int, float]]) -> None:
    idle, now_ns, last_busy_ns = Idle(SHARED_CORES), 0, 0
    for passed_ns, open_requests, waiting, kv_usage in looks:
        now_ns += passed_ns
        if now_ns == passed_ns or open_requests >= SLOTS or waiting > 0 or kv_usage >= KV_FULL:
            last_busy_ns = now_ns
        found = idle.look(
            now_ns, open_requests=open_requests, slots=SLOTS, waiting=waiting, kv_usage=kv_usage
        )
        assert found == (now_ns - last_busy_ns >= AFTER_NS)


def test_an_engine_that_does_not_say_how_many_it_runs_is_never_idle() -> None:
    idle = Idle(SHARED_CORES)
    for now_ns in (0, 10 * AFTER_NS):
        assert not idle.look(now_ns, open_requests=0, slots=0, waiting=0, kv_usage=0.0)


@pytest.mark.parametrize(
    "busy", [[Load(waiting=1)], [Load(kv_usage=KV_FULL)], [started(key, slot=key) for key in range(1, 5)]]
)
def test_whatever_may_make_requests_wait_ends_it_at_once(bench: Bench, busy: list[object]) -> None:
    grow_idle(bench)
    bench.apply(*busy)
    assert not bench.pipeline.look_idle()


def test_prompts_wait_while_it_is_idle_and_go_together_when_it_is_not(bench: Bench) -> None:
    grow_idle(bench)
    bench.apply(started(11, slot=1), started(12, slot=2), started(13, slot=3))
    assert bench.pipeline.claim_prompts() == []
    bench.export((11, 5, Kind.PROMPT, P0))
    bench.pipeline.step()
    bench.apply(Finished(key=12, slot=2, output_tokens=3), started(14, slot=2), Load(waiting=1))
    claimed = [key for key, _ in bench.pipeline.claim_prompts()]
    assert claimed == [13, 14], "one has the probe's prediction, one has ended"
    assert bench.pipeline.claim_prompts() == []


@pytest.mark.parametrize("end", [Hello(0, max_running=SLOTS), StreamEnded()])
def test_prompts_of_an_engine_that_is_gone_are_let_go(bench: Bench, end: object) -> None:
    grow_idle(bench)
    bench.apply(started(11, slot=1), end)
    pass_time(bench, 61_000_000_000)  # after which an engine that does not come back is given up
    bench.pipeline.step()
    bench.apply(Hello(0, max_running=SLOTS), Load(waiting=1))
    assert bench.pipeline.claim_prompts() == []


@contextmanager
def running(bench: Bench, prompts: PromptWorker | None = None) -> Iterator[Inbox]:
    inbox = Inbox()
    loop = SidecarLoop({0: bench.pipeline}, inbox, prompts, bench.telemetry.metrics, SHARED_CORES)
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield inbox
    finally:
        stop.set()
        thread.join(10)


def interval_s(bench: Bench) -> float:
    return bench.writer.reader_interval_ns() / 1e9


def test_the_loop_beats_while_it_rests_and_wakes_for_a_queue(bench: Bench) -> None:
    encoder = CountingEncoder()
    prompts = PromptWorker(
        lambda: encoder, lambda p: p @ BINS.midpoints, bench.telemetry, SHARED_CORES, on_loaded=lambda: None
    )
    prompts.start()
    grow_idle(bench)
    with running(bench, prompts) as inbox:
        until(lambda: interval_s(bench) == REST_S)
        beat_ns = bench.header().heartbeat_ns
        until(lambda: bench.header().heartbeat_ns > beat_ns)
        inbox.put(Delivery(0, 1, (started(11, slot=1),)), timeout_s=1)
        until(lambda: len(bench.pipeline.tracker))
        assert encoder.prompts == []
        inbox.put(Delivery(0, 1, (started(12, slot=2), Load(waiting=1))), timeout_s=1)
        until(lambda: all(bench.board(1, 2)["key"] == [11, 12]))
        assert interval_s(bench) < REST_S
    prompts.stop(10)
    assert len(encoder.prompts) == 2


def test_what_no_prediction_could_change_lets_the_loop_rest(make_bench: Callable[..., Bench]) -> None:
    """With c = 0 nobody who runs gives way; who waits is ranked all the same, long before the pause ends."""
    bench = make_bench(PolicySpec("trail", c=0.0))
    encoder = CountingEncoder()
    prompts = PromptWorker(
        lambda: encoder, lambda p: p @ BINS.midpoints, bench.telemetry, SHARED_CORES, on_loaded=lambda: None
    )
    prompts.start()
    bench.apply(Hello(engine=0, hidden_size=HIDDEN, layers=(2,), max_running=SLOTS), Load(waiting=1))
    assert bench.pipeline.settled
    assert not bench.pipeline.look_idle()
    with running(bench, prompts) as inbox:
        until(lambda: interval_s(bench) == REST_S)
        inbox.put(Delivery(0, 1, (started(11, slot=1),)), timeout_s=1)
        until(lambda: bench.board(1)["key"] == [11])
        assert interval_s(bench) == REST_S
    prompts.stop(10)


@pytest.mark.parametrize(
    ("spec", "load", "settled"),
    [
        (PolicySpec("trail", c=0.0), Load(waiting=9, kv_usage=0.5), True),
        (PolicySpec("trail", c=0.0), Load(waiting=9, kv_usage=KV_FULL), False),
        (PolicySpec("trail", c=0.2), Load(waiting=9), False),
        (PolicySpec("trail", c=0.2, shadow=True), Load(waiting=9), False),
        (PolicySpec("sjf"), Load(waiting=9), True),
        (PolicySpec("mlfq"), Load(waiting=9), False),
    ],
)
def test_predictions_of_running_requests_matter_where_one_may_give_way(
    make_bench: Callable[..., Bench], spec: PolicySpec, load: Load, settled: bool
) -> None:
    bench = make_bench(spec)
    bench.apply(load)
    assert bench.pipeline.settled == settled


def test_a_pipeline_that_fails_is_silent_however_idle_it_is(bench: Bench) -> None:
    class Broken:
        layer, hidden_size = 2, HIDDEN

        def predict(self, *_: object) -> np.ndarray:
            raise RuntimeError("no more memory")

    assert bench.pipeline.predictor is not None
    bench.apply(started(11, slot=1))
    grow_idle(bench)
    bench.pipeline.predictor.probe = Broken()
    loop = SidecarLoop({0: bench.pipeline}, Inbox(), None, bench.telemetry.metrics, SHARED_CORES)
    loop.step()
    beat_ns = bench.header().heartbeat_ns
    batch = rows((11, 5 + 1, Kind.TOKEN, P0))
    bench.writer.write(1, batch.rows, batch.vectors)
    loop.step()
    assert not loop._idle()
    assert bench.header().heartbeat_ns == beat_ns
