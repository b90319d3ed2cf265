"""The sidecar process with a collector: spans of what an engine reports, and a clean end without it."""

import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from service_kit import EngineStream, SidecarProcess, until

from benchmarks.observe.receiver import Receiver
from trail.wire.v1 import trail_pb2

Run = Callable[..., SidecarProcess]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver().start()
    yield receiver
    receiver.stop()


def serve(stream: EngineStream, key: int) -> None:
    """A request from its arrival, three seconds ago, to its end."""
    wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
    clocks = {"monotonic_ns": now_ns, "wall_ns": wall_ns}
    stream.send(
        started=[
            trail_pb2.RequestStarted(
                key=key, request_id=f"r{key}", slot=1, prompt_token_ids=[1, 2], exact_output_tokens=9,
                arrival_time_s=wall_ns / 1e9 - 3,
                trace_headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
                passage=trail_pb2.Passage(queued_ns=now_ns - 3 * 10**9),
            )
        ],
        **clocks,
    )  # fmt: skip
    admitted = trail_pb2.RequestChanged(
        key=key, change=trail_pb2.CHANGE_ADMITTED, time_ns=now_ns - 2 * 10**9, rank=9.0
    )
    passage = trail_pb2.Passage(queued_ns=now_ns - 3 * 10**9, admitted_ns=now_ns - 2 * 10**9, ended_ns=now_ns)
    ended = trail_pb2.RequestFinished(key=key, slot=1, output_tokens=9, finish_reason="stop", passage=passage)
    stream.send(changed=[admitted], finished=[ended], **clocks)


def test_spans_go_to_the_collector_and_its_absence_keeps_nothing_alive(
    run_sidecar: Run, receiver: Receiver
) -> None:
    sidecar = run_sidecar("--policy", "oracle", "--otlp-endpoint", receiver.endpoint)
    board = until(sidecar.board)
    stream = EngineStream(sidecar.directory)
    stream.hello()
    serve(stream, 5)
    (span,) = until(lambda: receiver.spans)
    assert (span.name, span.trace_id, span.parent_id) == ("trail.schedule", TRACE, PARENT)
    assert span.attributes["gen_ai.usage.output_tokens"] == 9
    assert 2.9e9 < span.end_ns - span.start_ns < 3.1e9
    (event,) = until(lambda: receiver.events)
    assert (event.name, event.span_id) == ("trail.request.admitted", span.span_id)
    assert 0.9e9 < event.time_ns - span.start_ns < 1.1e9

    receiver.error = grpc.StatusCode.PERMISSION_DENIED
    calls = receiver.calls
    serve(stream, 6)
    until(lambda: receiver.calls > calls)
    receiver.stop()
    serve(stream, 7)
    assert until(lambda: board.fresh(100_000_000))
    board.close()
    stream.close()
    code, log = sidecar.end()
    assert code == 0
    assert log.count("takes no spans") == 1
    assert "Traceback" not in log
    assert "opentelemetry" not in log


def test_an_endpoint_that_cannot_be_used_costs_the_traces_alone(run_sidecar: Run) -> None:
    sidecar = run_sidecar("--policy", "oracle", "--otlp-endpoint", "https://[::1")
    until(sidecar.board)
    code, log = sidecar.end()
    assert code == 0
    assert "no traces:" in log
