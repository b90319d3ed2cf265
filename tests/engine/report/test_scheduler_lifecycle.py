"""The lifecycle stream against a real gRPC server on a unix socket."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from scheduler_process import wait_until

from trail.engine.report import stream as lifecycle
from trail.engine.report.stream import LifecycleStream, _batch
from trail.wire.lifecycle import Finished, Hello, Load, Started, from_message, to_message
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

HELLO = Hello(3, "0.32.0", "model", 64, (2,), "float32", 32, 100, 8, 512, prefix_caching=True)


def started(number: int, slot: int | None = None, age: int = 0) -> Started:
    place = number if slot is None else slot
    return Started(
        number + 1, f"r{number}", place, [1, 2, 3], 100, 7, age, 5.0, 12.5, 0, {"traceparent": "x"}
    )


def finished(number: int, slot: int | None = None) -> Finished:
    return Finished(number + 1, number if slot is None else slot, 10, 1, 4, "stop")


class Server(trail_pb2_grpc.LifecycleServicer):
    """Keeps every message; can stop reading."""

    def __init__(self, socket: Path) -> None:
        self.messages: list[Any] = []
        self.streams = 0
        self.reading = threading.Event()
        self.reading.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        trail_pb2_grpc.add_LifecycleServicer_to_server(self, self._server)
        socket.unlink(missing_ok=True)
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def Report(self, request_iterator: Iterator[Any], context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.streams += 1
        for message in request_iterator:
            self.messages.append(message)
            self.reading.wait()
        return trail_pb2.ReportEnd()

    def ids(self) -> list[str]:
        return [request.request_id for message in list(self.messages) for request in message.started]

    def hellos(self) -> int:
        return sum(message.HasField("hello") for message in list(self.messages))

    def stop(self) -> None:
        self.reading.set()
        self._server.stop(None).wait()


@pytest.fixture
def socket() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="trail-test-"))
    yield directory / "s.sock"
    shutil.rmtree(directory)


@pytest.fixture
def stream(socket: Path) -> Iterator[LifecycleStream]:
    stream = LifecycleStream(socket, HELLO)
    stream.start()
    yield stream
    stream.stop()


def test_a_stream_begins_with_hello_and_asks_for_the_open_requests(
    socket: Path, stream: LifecycleStream
) -> None:
    server = Server(socket)
    assert wait_until(lambda: stream.wants_resend)
    stream.resend([started(1, age=9)])
    assert not stream.wants_resend
    stream.report(started(2))
    stream.report(finished(1))
    assert wait_until(lambda: len(server.ids()) == 2 and any(m.finished for m in server.messages))
    hello = server.messages[0].hello
    assert (hello.engine, hello.hidden_size, list(hello.layers), hello.dtype) == (3, 64, [2], "float32")
    first = next(request for message in server.messages for request in message.started)
    assert (first.age, first.initial_prediction, first.exact_output_tokens, first.slot) == (9, 5.0, 7, 1)
    assert list(first.prompt_token_ids) == [1, 2, 3]
    assert dict(first.trace_headers) == {"traceparent": "x"}
    end = next(request for message in server.messages for request in message.finished)
    assert (end.key, end.output_tokens, end.preemptions, end.recomputed_tokens) == (2, 10, 1, 4)
    server.stop()


def test_without_a_sidecar_events_are_dropped_and_nothing_waits(
    socket: Path, stream: LifecycleStream
) -> None:
    for number in range(100_000):
        stream.report(started(number))
    assert stream._queue.qsize() == 0
    server = Server(socket)
    assert wait_until(lambda: stream.wants_resend)
    assert server.ids() == []
    server.stop()


def test_a_restarted_sidecar_is_told_again(socket: Path, stream: LifecycleStream) -> None:
    first = Server(socket)
    assert wait_until(lambda: stream.wants_resend)
    stream.resend([])
    first.stop()
    second = Server(socket)
    assert wait_until(lambda: stream.wants_resend)
    stream.resend([started(5, age=3)])
    assert wait_until(lambda: second.ids() == ["r5"])
    assert second.hellos() == 1
    second.stop()


def test_a_sidecar_that_stops_reading_loses_the_stream_and_is_told_all_again(
    socket: Path, stream: LifecycleStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "QUEUE_LIMIT", 50)
    server = Server(socket)
    assert wait_until(lambda: stream.wants_resend)
    stream.resend([])
    assert wait_until(lambda: server.hellos() == 1)
    server.reading.clear()
    long_prompt = replace(started(0), prompt_token_ids=list(range(60_000)))
    for _ in range(2_000):
        stream.report(long_prompt)
        if stream._queue.qsize() == 0 and not stream._open:
            break
    assert wait_until(lambda: not stream._open)
    assert stream._queue.qsize() <= 52
    server.reading.set()
    assert wait_until(lambda: stream.wants_resend)
    stream.resend([started(9, age=1)])
    assert wait_until(lambda: server.ids()[-1:] == ["r9"])
    assert server.hellos() == 2
    server.stop()


def test_the_load_is_sent_when_it_changes(socket: Path, stream: LifecycleStream) -> None:
    server = Server(socket)
    load = Load(1, 2, 0.5, 3, 4, 5, 6, 7, 8)
    stream.set_load(load)
    assert wait_until(lambda: any(message.HasField("load") for message in server.messages))
    sent = next(message.load for message in server.messages if message.HasField("load"))
    assert (sent.waiting, sent.running, sent.kv_usage, sent.preemptions_total) == (1, 2, 0.5, 3)
    assert (sent.policy_preemptions_total, sent.recomputed_tokens_total) == (4, 5)
    assert (sent.fallback_steps_total, sent.steps_total, sent.preemptions_denied_total) == (6, 7, 8)
    server.stop()


def test_stopping_ends_the_thread(socket: Path) -> None:
    server = Server(socket)
    stream = LifecycleStream(socket, HELLO)
    stream.start()
    assert wait_until(lambda: stream.wants_resend)
    stream.stop(wait_s=10.0)
    assert not stream._thread.is_alive()
    assert wait_until(lambda: not any(t.name == "trail-lifecycle" for t in threading.enumerate()))
    server.stop()


def test_a_message_holds_what_came_since_the_last_also_when_slots_are_taken_again() -> None:
    queue: SimpleQueue[Any] = SimpleQueue()
    events = [
        started(1, slot=1),
        finished(0, slot=0),
        started(2, slot=0),
        finished(2, slot=0),
        started(3, slot=0),
    ]
    for event in events:
        queue.put(event)
    taken, ended = _batch(queue)
    assert (taken, ended) == (events, False)
    applied = list(from_message(to_message(taken)))
    # Whoever held a slot has ended before the next request takes it.
    assert [(type(event).__name__, event.key) for event in applied] == [
        ("Finished", 1), ("Started", 2), ("Started", 3), ("Finished", 3), ("Started", 4),
    ]  # fmt: skip


def test_messages_carry_both_clocks(socket: Path, stream: LifecycleStream) -> None:
    server = Server(socket)
    stream.set_load(Load(waiting=1))
    assert wait_until(lambda: len(server.messages) > 1)
    hello, told = server.messages[:2]
    assert not hello.wall_ns
    assert abs(told.wall_ns - time.time_ns()) < 60 * 10**9
    assert abs(told.monotonic_ns - time.monotonic_ns()) < 60 * 10**9
    server.stop()


def test_the_socket_path_of_the_test_is_short_enough(socket: Path) -> None:
    assert len(os.fsencode(socket)) < 100
