"""The sidecar as a process: start, service, restart over what a killed one left, and a clean end."""

import json
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from service_kit import HIDDEN, LAYER, EngineStream, SidecarProcess, rows, until, vector

from trail.wire.board import BoardReader
from trail.wire.frames import FrameWriter, Kind
from trail.wire.names import ring_path, socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

Run = Callable[..., SidecarProcess]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def row_of(board: BoardReader, slot: int, key: int) -> np.void | None:
    snapshot = board.snapshot(np.array([slot]))
    return snapshot.rows[0] if snapshot is not None and snapshot.rows[0]["key"] == key else None


def left_in(sidecar: SidecarProcess) -> list[Path]:
    return list(sidecar.directory.iterdir())


def health_of(channel: grpc.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return int(stub.Check(request, timeout=5, wait_for_ready=True).status)


def begin(stream: EngineStream, key: int, slot: int, **more: object) -> None:
    stream.send(
        started=[
            trail_pb2.RequestStarted(
                key=key, request_id=f"r{key}", slot=slot, prompt_token_ids=[3, 1, 4], max_tokens=60, **more
            )
        ]
    )


def test_from_prompt_and_frames_to_the_board_and_the_stats_file(
    run_sidecar: Run, predictor_dir: Path, tmp_path: Path
) -> None:
    stats = tmp_path / "out" / "stats.json"
    sidecar = run_sidecar("--stats-file", str(stats), predictor=predictor_dir)
    board = until(sidecar.board)
    stream = EngineStream(sidecar.directory)
    stream.hello()
    begin(stream, key=11, slot=3)
    # The prompt predictor, once loaded, gives a prediction before any hidden state exists.
    row = until(lambda: row_of(board, 3, 11))
    assert 0 < row["initial"] <= 60
    assert row["age"] == 0
    writer = FrameWriter.attach(
        ring_path(sidecar.directory, 0), hidden_size=HIDDEN, dtype="float32", layers=[LAYER]
    )
    batch = rows((11, 3, Kind.PROMPT, vector(1, 2, 3)), (11, 3 + 5, Kind.TOKEN, vector(2, 1)))
    assert writer.write(1, batch.rows, batch.vectors) == 1
    row_later = until(lambda: (r := row_of(board, 3, 11)) is not None and r["age"] == 5 and r)
    assert row_later["initial"] == row["initial"]
    stream.send(load=trail_pb2.Load(running=1, steps_total=40, fallback_steps_total=2))
    stream.send(finished=[trail_pb2.RequestFinished(key=11, slot=3, output_tokens=21, finish_reason="stop")])
    control = trail_pb2_grpc.ControlStub(stream.channel)
    description = until(
        lambda: (d := control.Describe(trail_pb2.DescribeRequest())).engines[0].open_requests == 0 and d
    )
    assert description.predictor == str(predictor_dir)
    assert (description.model, description.hidden_size, list(description.layers), description.bins) == (
        "example/small", HIDDEN, [LAYER], 4,
    )  # fmt: skip
    engine = description.engines[0]
    assert (engine.hello.hidden_size, list(engine.hello.layers)) == (HIDDEN, [LAYER])
    assert (engine.load.running, engine.load.fallback_steps_total, engine.frames_read) == (1, 2, 1)
    assert health_of(stream.channel) == SERVING
    port = until(sidecar.metrics_port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for line in (
        'trail_frames_read_total{engine="0"} 1.0',
        'trail_predictions_total{engine="0"} 2.0',
        'trail_finished_requests_total{engine="0",reason="stop"} 1.0',
        'trail_engine_fallback_steps_total{engine="0"} 2.0',
        "trail_board_delay_seconds_count 1.0",
        "trail_refined_error_tokens_count 1.0",
    ):
        assert line in text
    stream.close()
    writer.close()
    code, log = sidecar.end()
    assert (code, left_in(sidecar)) == (0, [])
    assert "Traceback" not in log
    assert "[3, 1, 4]" not in log
    written = json.loads(stats.read_text())
    (record,) = written["requests"]
    assert (record["request_id"], record["output_tokens"], record["predictions"]) == ("r11", 21, 2)
    assert record["initial"] == pytest.approx(float(row["initial"]))
    assert written["delay_us"]["count"] == written["predict_us"]["count"] == 1


def test_a_predictor_without_a_probe_orders_by_prompts_alone(run_sidecar: Run, prompt_only_dir: Path) -> None:
    sidecar = run_sidecar("--policy", "trail-prompt", predictor=prompt_only_dir)
    board = until(sidecar.board)
    assert not ring_path(sidecar.directory, 0).exists()
    stream = EngineStream(sidecar.directory)
    stream.hello()
    begin(stream, key=11, slot=3)
    row = until(lambda: row_of(board, 3, 11))
    assert 0 < row["rank"] == row["initial"] <= 60
    description = trail_pb2_grpc.ControlStub(stream.channel).Describe(trail_pb2.DescribeRequest())
    assert list(description.layers) == []
    assert health_of(stream.channel) == SERVING
    stream.close()
    code, log = sidecar.end()
    assert (code, left_in(sidecar)) == (0, [])
    assert "Traceback" not in log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(run_sidecar: Run, probe_only_dir: Path, how: signal.Signals) -> None:
    sidecar = run_sidecar(predictor=probe_only_dir)
    board = until(sidecar.board)
    code, log = sidecar.end(how)
    assert code == 0, log
    assert not board.fresh(10**12), "the heartbeat is withdrawn, so that the engine falls back at once"
    assert left_in(sidecar) == []


def test_one_that_was_stopped_goes_on_when_continued(run_sidecar: Run, probe_only_dir: Path) -> None:
    sidecar = run_sidecar(predictor=probe_only_dir)
    board = until(sidecar.board)
    sidecar.process.send_signal(signal.SIGSTOP)
    until(lambda: not board.fresh(100_000_000))
    time.sleep(1.5)  # longer than any wait of its main thread
    sidecar.process.send_signal(signal.SIGCONT)
    until(lambda: board.fresh(100_000_000))
    time.sleep(1.5)
    assert sidecar.process.poll() is None
    assert board.fresh(1_000_000_000)
    assert sidecar.end()[0] == 0


def test_sigterm_while_the_prompt_predictor_loads(run_sidecar: Run, predictor_dir: Path) -> None:
    sidecar = run_sidecar(predictor=predictor_dir)
    until(sidecar.board)
    code, log = sidecar.end()
    assert code == 0, log
    assert left_in(sidecar) == []


def test_killed_sidecar_is_replaced(run_sidecar: Run, probe_only_dir: Path) -> None:
    first = run_sidecar(predictor=probe_only_dir)
    old = until(first.board)
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert socket_path(first.directory).is_socket(), "what the killed one left"
    second = run_sidecar(predictor=probe_only_dir)
    until(lambda: second.board() if not old.fresh(100_000_000) else None)
    stream = EngineStream(second.directory)
    stream.hello()
    begin(stream, key=11, slot=3, age=7, initial_prediction=33.0)
    board = until(second.board)
    row = until(lambda: row_of(board, 3, 11))
    assert (row["initial"], row["rank"]) == (33, 33)
    stream.close()


def test_second_sidecar_in_one_directory_is_refused(run_sidecar: Run, probe_only_dir: Path) -> None:
    first = run_sidecar(predictor=probe_only_dir)
    board = until(first.board)
    second = run_sidecar(predictor=probe_only_dir)
    second.process.wait(30)
    code, log = second.end()
    assert code == 2
    assert "another sidecar already serves" in log
    assert board.fresh(100_000_000), "the first one is undisturbed"
    assert socket_path(first.directory).is_socket()


def test_mismatched_engine_turns_predictions_off(run_sidecar: Run, probe_only_dir: Path) -> None:
    sidecar = run_sidecar(predictor=probe_only_dir)
    board = until(sidecar.board)
    stream = EngineStream(sidecar.directory)
    until(lambda: health_of(stream.channel) == SERVING)
    stream.hello(hidden_size=4096)
    until(lambda: health_of(stream.channel) == NOT_SERVING)
    assert health_of(stream.channel, "trail.v1.Ranking") == SERVING
    snapshot = board.snapshot(np.array([0]))
    assert snapshot is not None
    assert (snapshot.header.order, snapshot.header.preempt) == (False, False)
    stream.close()
    # The right engine afterwards is served.
    again = EngineStream(sidecar.directory)
    again.hello()
    until(lambda: health_of(again.channel) == SERVING)
    again.close()
    code, log = sidecar.end()
    assert code == 0
    assert log.count("the model exports hidden size 4096, the predictor reads 8") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--predictor", "/nowhere"], "no predictor at /nowhere"),
        ([], "policy trail needs a predictor"),
        (["--policy", "best"], "unknown policy 'best'"),
        (["--policy", "oracle", "--engines", "0"], "engines must be at least 1"),
        (["--policy", "oracle", "--rank-address", "256.0.0.1:1"], "cannot listen on 256.0.0.1:1"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(run_sidecar: Run, arguments: list[str], sentence: str) -> None:
    sidecar = run_sidecar(*arguments)
    sidecar.process.wait(30)
    code, log = sidecar.end()
    assert code == 2
    assert sentence in log
    assert "Traceback" not in log
    assert not sidecar.directory.exists() or left_in(sidecar) == []


def test_damaged_probe_is_refused(run_sidecar: Run, probe_only_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "trail.json").write_bytes((probe_only_dir / "trail.json").read_bytes())
    (broken / "probe.safetensors").write_bytes((probe_only_dir / "probe.safetensors").read_bytes()[:-1])
    sidecar = run_sidecar(predictor=broken)
    sidecar.process.wait(30)
    code, log = sidecar.end()
    assert code == 2
    assert "it was cut short or exchanged" in log
    assert "Traceback" not in log
    assert left_in(sidecar) == []


def test_file_in_place_of_the_socket_is_refused(run_sidecar: Run, tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    socket_path(directory).write_text("mine")
    sidecar = run_sidecar("--policy", "fcfs")
    sidecar.process.wait(30)
    code, log = sidecar.end()
    assert code == 2
    assert "is no socket" in log
    assert socket_path(directory).read_text() == "mine"


def test_taken_metrics_port_is_named_and_costs_only_the_metrics(run_sidecar: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sidecar = run_sidecar("--policy", "fcfs", "--metrics-port", str(port))
        until(sidecar.board)
        code, log = sidecar.end()
    assert code == 0
    assert f"no metrics on 127.0.0.1:{port}" in log


def test_oracle_needs_no_predictor_and_refuses_policies_that_do(run_sidecar: Run) -> None:
    sidecar = run_sidecar("--policy", "oracle-c0.5")
    board = until(sidecar.board)
    stream = EngineStream(sidecar.directory)
    stream.hello()
    begin(stream, key=11, slot=3, exact_output_tokens=40)
    row = until(lambda: row_of(board, 3, 11))
    assert (row["rank"], row["cutoff"]) == (40, 20)
    control = trail_pb2_grpc.ControlStub(stream.channel)
    with pytest.raises(grpc.RpcError) as refused:
        control.SetPolicy(trail_pb2.Policy(name="trail", c=0.5))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    stream.close()
