"""The loop survives what a round can throw at it, and is silent while it does not work."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from service_kit import BINS, Bench, TellingProbe, started, until, vector

from trail.sidecar.loop.counters import Metrics
from trail.sidecar.loop.loop import Delivery, Inbox, SidecarLoop
from trail.sidecar.loop.prompting import PromptJob, PromptState, PromptWorker
from trail.sidecar.pacing import SHARED_CORES
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished, Hello, Started

P0 = vector(0.1, 0.2, 0.3, 0.4)


class BreakingProbe(TellingProbe):
    def __init__(self) -> None:
        super().__init__()
        self.broken = True

    def predict(self, vectors: np.ndarray, ages: np.ndarray, prompt_tokens: np.ndarray) -> np.ndarray:
        if self.broken:
            raise RuntimeError("no more memory")
        return super().predict(vectors, ages, prompt_tokens)


class SureEncoder:
    """A prompt predictor that is sure of the bin in which the first token id lies; 99 breaks it."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        self.batches.append(len(prompts))
        if any(99 in prompt for prompt in prompts):
            raise ValueError(f"bad prompt {prompts}")
        return np.eye(BINS.k, dtype=np.float32)[[prompt[0] for prompt in prompts]]


def failures(metrics: Metrics, part: str) -> float:
    return metrics.registry.get_sample_value("trail_failures_total", {"part": part}) or 0.0


def make_loop(bench: Bench, prompts: PromptWorker | None = None) -> tuple[SidecarLoop, Inbox]:
    inbox = Inbox()
    return SidecarLoop({0: bench.pipeline}, inbox, prompts, bench.telemetry.metrics, SHARED_CORES), inbox


@contextmanager
def running(loop: SidecarLoop) -> Iterator[threading.Thread]:
    """The loop in a thread of its own, told to stop at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(10)


def make_worker(bench: Bench, load: Callable[[], SureEncoder | None]) -> PromptWorker:
    return PromptWorker(
        load, lambda p: p @ BINS.midpoints, bench.telemetry, SHARED_CORES, on_loaded=lambda: None
    )


def test_failed_prediction_is_counted_named_once_and_silent(
    make_bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    probe = BreakingProbe()
    bench = make_bench(probe=probe)
    loop, _ = make_loop(bench)
    bench.apply(started(11, slot=3))
    loop.step()
    beat_ns = bench.header().heartbeat_ns
    with caplog.at_level(logging.ERROR, logger="trail.sidecar"):
        for age in (1, 2, 3):
            bench.export((11, 5 + age, Kind.TOKEN, P0))
            loop.step()
    assert failures(bench.telemetry.metrics, "loop") == 3
    assert bench.header().heartbeat_ns == beat_ns, "silence is what makes the engine fall back"
    assert len(caplog.records) == 1
    assert "engine 0: RuntimeError at test_loop.py" in caplog.records[0].getMessage()
    probe.broken = False
    bench.export((11, 5 + 4, Kind.TOKEN, P0))
    loop.step()
    assert bench.board(3)[0]["age"] == 4
    assert bench.header().heartbeat_ns > beat_ns


def test_every_round_beats_for_board_and_ring(bench: Bench) -> None:
    loop, _ = make_loop(bench)
    loop.step()
    first_ns = bench.header().heartbeat_ns
    assert not loop.step(), "there was nothing to do"
    assert bench.header().heartbeat_ns > first_ns
    assert bench.writer.reader_alive(10**9)


def test_one_bad_event_does_not_cost_the_others(bench: Bench) -> None:
    loop, inbox = make_loop(bench)
    events = (started(10, slot=99), started(11, slot=3, initial_prediction=40.0))
    assert inbox.put(Delivery(0, 1, events), timeout_s=0)
    assert loop.step()
    assert bench.board(3)[0]["key"] == 11
    assert failures(bench.telemetry.metrics, "loop") == 1


def test_thread_keeps_beating_and_stops_when_told(bench: Bench) -> None:
    loop, inbox = make_loop(bench)
    with running(loop) as thread:
        until(lambda: bench.reader.fresh(50_000_000))
        inbox.put(Delivery(0, 1, (started(11, slot=3, initial_prediction=40.0),)), timeout_s=1)
        until(lambda: bench.board(3)[0]["key"] == 11)
    assert not thread.is_alive()


def test_full_inbox_makes_the_stream_wait() -> None:
    inbox = Inbox()
    while inbox.put(Delivery(0, 1, ()), timeout_s=0):
        pass
    held = len(inbox.drain(10**9))
    assert held > 0
    assert inbox.put(Delivery(0, 1, ()), timeout_s=0)


def test_prompts_are_predicted_in_batches_and_reach_the_board(bench: Bench) -> None:
    encoder = SureEncoder()
    worker = make_worker(bench, lambda: encoder)
    loop, inbox = make_loop(bench, worker)
    begun = tuple(
        Started(key=key, request_id="", slot=key - 1, prompt_token_ids=(key % BINS.k, 5))
        for key in range(1, 17)
    )
    inbox.put(Delivery(0, 1, begun), timeout_s=0)
    loop.step()
    worker.start()
    until(lambda: loop.step() and all(bench.board(*range(16))["key"]))
    worker.stop(10)
    assert bench.board(0, 1, 2, 3)["initial"].tolist() == [24, 40, 56, 8]
    assert encoder.batches == [len(begun)], "what waited while the predictor loaded goes in one batch"


def test_prompt_that_breaks_the_predictor_is_not_quoted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(bench, SureEncoder)
    with caplog.at_level(logging.ERROR, logger="trail.sidecar"):
        worker.submit(PromptJob(0, 1, (99, 98)))
        worker.start()
        until(lambda: failures(bench.telemetry.metrics, "prompt_predictor") == 1)
        worker.submit(PromptJob(0, 2, (1,)))
        results = until(worker.drain)
    worker.stop(10)
    assert [(result.key, result.tokens) for result in results] == [(2, 24.0)]
    assert "ValueError on a batch of 1 prompts" in caplog.text
    assert "98" not in caplog.text


@pytest.mark.parametrize("broken", [False, True])
def test_without_a_prompt_predictor_jobs_are_let_go(bench: Bench, broken: bool) -> None:
    def load() -> None:
        if broken:
            raise ValueError("no such file")

    worker = make_worker(bench, load)
    worker.start()
    until(lambda: worker.state is PromptState.OFF)
    worker.submit(PromptJob(0, 1, (1,)))
    assert worker.drain() == []
    assert failures(bench.telemetry.metrics, "prompt_predictor") == float(broken)


def test_result_for_a_request_that_has_ended_is_let_go(bench: Bench) -> None:
    worker = make_worker(bench, SureEncoder)
    loop, inbox = make_loop(bench, worker)
    inbox.put(Delivery(0, 1, (started(1, slot=0),)), timeout_s=0)
    loop.step()
    inbox.put(Delivery(0, 1, (Finished(key=1, slot=0, output_tokens=2), Hello(0))), timeout_s=0)
    loop.step()
    worker.start()
    until(lambda: bench.telemetry.stats.prompt_us.count)
    assert loop.step(), "the result was taken"
    worker.stop(10)
    assert bench.board(0)[0]["key"] == 0


def test_the_worker_hears_how_long_the_loop_rests(bench: Bench) -> None:
    loop, _ = make_loop(bench)
    with running(loop):
        bench.apply(started(1, 0))
        bench.export((1, 5, Kind.PROMPT, P0))
        until(
            lambda: 0 < bench.writer.reader_interval_ns() <= int(SHARED_CORES.loop_rest_crowded_most_s * 1e9)
        )


def test_a_burst_that_takes_long_to_hear_of_does_not_silence_the_heartbeat(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, inbox = make_loop(bench)
    loop.step()
    beats: list[int | None] = []

    def slow(event: object, session: int) -> None:
        time.sleep(1.5 * SHARED_CORES.beat_every_s)
        beats.append(bench.pipeline.beat_ns)

    bench.pipeline._clock = time.monotonic_ns
    monkeypatch.setattr(bench.pipeline, "apply", slow)
    inbox.put(Delivery(0, 1, tuple(started(key, key) for key in range(1, 5))), timeout_s=1)
    loop.step()
    assert len(set(beats)) == 4, "one between any two events"


def test_a_loop_that_fails_does_not_beat_for_what_it_hears(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, inbox = make_loop(bench)
    monkeypatch.setattr(bench.pipeline, "step", lambda: 1 / 0)
    loop.step()
    beat_ns = bench.pipeline.beat_ns
    monkeypatch.setattr(bench.pipeline, "apply", lambda *_: time.sleep(1.5 * SHARED_CORES.beat_every_s))
    inbox.put(Delivery(0, 1, (started(1, 1), started(2, 2))), timeout_s=1)
    loop.step()
    assert bench.pipeline.beat_ns == beat_ns
