"""The generated stubs are current and run on every protobuf and grpcio that vLLM's environments hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROUND_TRIP = """
import sys, tempfile
from concurrent import futures
import google.protobuf, grpc
from trail.wire.v1 import trail_pb2 as pb, trail_pb2_grpc as rpc

class Servicer(rpc.LifecycleServicer, rpc.RankingServicer):
    seen = []
    def Report(self, events, context):
        self.seen.extend(events)
        return pb.ReportEnd()
    def Rank(self, request, context):
        ranked = [pb.Ranked(id=c.id, rank=c.initial_prediction) for c in request.candidates]
        return pb.RankResponse(ranked=ranked)

started = pb.RequestStarted(
    key=2**64 - 1, request_id="cmpl-\u00e9", slot=4095, prompt_token_ids=range(1000), max_tokens=16,
    arrival_time_s=1.5, priority=-3, trace_headers={"traceparent": "00-a-b-01"}, initial_prediction=12.5)
events = pb.EngineEvents(hello=pb.Hello(engine=1, layers=[3, 11], dtype="bfloat16"), started=[started],
                         finished=[pb.RequestFinished(key=7, finish_reason="stop")],
                         load=pb.Load(kv_usage=0.5))
assert pb.EngineEvents.FromString(events.SerializeToString()) == events
assert not pb.EngineEvents().HasField("load")

server = grpc.server(futures.ThreadPoolExecutor(2))
servicer = Servicer()
rpc.add_LifecycleServicer_to_server(servicer, server)
rpc.add_RankingServicer_to_server(servicer, server)
rpc.add_ControlServicer_to_server(rpc.ControlServicer(), server)
with tempfile.TemporaryDirectory() as directory:
    server.add_insecure_port(f"unix:{directory}/sidecar.sock")
    server.start()
    with grpc.insecure_channel(f"unix:{directory}/sidecar.sock") as channel:
        rpc.LifecycleStub(channel).Report(iter([events, events]), timeout=30)
        assert servicer.seen == [events, events]
        request = pb.RankRequest(candidates=[pb.RankCandidate(id="a", initial_prediction=2.0)])
        assert rpc.RankingStub(channel).Rank(request, timeout=30).ranked[0].rank == 2.0
        try:
            rpc.ControlStub(channel).GetPolicy(pb.GetPolicyRequest(), timeout=30)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        else:
            raise AssertionError("an unimplemented method answered")
    server.stop(None).wait()
print(google.protobuf.__version__, grpc.__version__, events.SerializeToString(deterministic=True).hex())
"""


def round_trip(libraries: Path | None = None, **environment: str) -> list[str]:
    """Versions of protobuf and grpcio, and a message's bytes, from a process that uses `libraries`."""
    path = [str(libraries)] if libraries else []
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", ROUND_TRIP],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join([*path, str(ROOT / "sidecar")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def installed(directory: Path, *requirements: str) -> Path:
    """A directory that holds exactly these distributions; skips where no index can be reached."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = ["--only-binary=:all:", "--retries=1", "--timeout=20", "--target", str(directory)]
    result = subprocess.run(
        [*command, *options, *requirements], capture_output=True, text=True, check=False, timeout=300
    )
    if result.returncode:
        pytest.skip(f"pip cannot install {' '.join(requirements)} here: {result.stderr.strip()[-300:]}")
    return directory


def test_the_stubs_are_current() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "protos" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_check_notices_a_changed_contract(tmp_path: Path) -> None:
    for part in ("protos", "sidecar/trail/wire/v1"):
        for file in (ROOT / part).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                copy = tmp_path / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    check = [sys.executable, str(tmp_path / "protos" / "generate.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0
    contract = tmp_path / "protos" / "trail" / "v1" / "trail.proto"
    contract.write_text(contract.read_text().replace("uint32 max_running = 9;", "uint64 max_running = 9;"))
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "trail_pb2.py" in result.stderr
    assert "generate.py" in result.stderr


def test_this_environments_runtime() -> None:
    round_trip()


def test_the_oldest_runtimes(tmp_path: Path) -> None:
    libraries = installed(tmp_path, "protobuf==5.29.6", "grpcio==1.63.2")
    *versions, message = round_trip(libraries)
    assert versions == ["5.29.6", "1.63.2"]
    assert message == round_trip()[-1]


def test_the_oldest_protobuf_without_its_native_part(tmp_path: Path) -> None:
    libraries = installed(tmp_path, "protobuf==5.29.6")
    *versions, message = round_trip(libraries, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")
    assert versions[0] == "5.29.6"
    assert message == round_trip()[-1]


@pytest.mark.parametrize("protobuf", ["protobuf==6.33.5", "protobuf>=6.33.5,<7", "protobuf>=7,<8"])
def test_runtimes_between_and_newest(tmp_path: Path, protobuf: str) -> None:
    libraries = installed(tmp_path, protobuf)
    *versions, message = round_trip(libraries)
    assert versions[0].split(".")[0] == ("7" if ">=7" in protobuf else "6")
    assert message == round_trip()[-1]
