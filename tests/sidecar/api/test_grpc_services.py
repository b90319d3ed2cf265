"""The gRPC services on real sockets: what they accept, what they refuse, and what TCP does not offer."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from service_kit import EngineStream, until

from trail.policy.spec import PolicySpec
from trail.sidecar.config import SidecarConfig
from trail.sidecar.process.directory_lock import DirectoryLock, SidecarError
from trail.sidecar.sidecar import Sidecar
from trail.wire.names import socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc


@pytest.fixture
def config(tmp_path: Path) -> SidecarConfig:
    return SidecarConfig(
        directory=tmp_path / "shared", predictor=None, policy=PolicySpec("oracle", 0.5), metrics_port=-1
    )


@pytest.fixture
def sidecar(config: SidecarConfig, unused_tcp_port: int) -> Iterator[Sidecar]:
    sidecar = Sidecar(replace(config, rank_address=f"127.0.0.1:{unused_tcp_port}", engines=2))
    sidecar.start()
    yield sidecar
    sidecar.close()


@pytest.fixture
def unix(sidecar: Sidecar) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"unix:{socket_path(sidecar.config.directory)}") as channel:
        yield channel


@pytest.fixture
def tcp(sidecar: Sidecar) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(sidecar.config.rank_address) as channel:
        yield channel


def candidate(name: str, **fields: object) -> trail_pb2.RankCandidate:
    return trail_pb2.RankCandidate(id=name, **fields)


def test_set_policy_is_in_force_and_counted(unix: grpc.Channel) -> None:
    control = trail_pb2_grpc.ControlStub(unix)
    before = control.GetPolicy(trail_pb2.GetPolicyRequest())
    assert (before.name, before.c, before.generation) == ("oracle", 0.5, 1)
    after = control.SetPolicy(trail_pb2.Policy(name="oracle", c=0.25, kv_reserve_tokens=-1))
    assert after.generation == 2
    assert control.GetPolicy(trail_pb2.GetPolicyRequest()) == after
    assert control.Describe(trail_pb2.DescribeRequest()).policy == after


def test_what_a_policy_leaves_open_is_its_own_default(unix: grpc.Channel, sidecar: Sidecar) -> None:
    ranking, control = trail_pb2_grpc.RankingStub(unix), trail_pb2_grpc.ControlStub(unix)
    short = candidate("short", initial_prediction=2, arrival_time_s=1.0)
    long = candidate("long", initial_prediction=200, arrival_time_s=0.0)
    urgent = candidate("urgent", initial_prediction=300, arrival_time_s=2.0, deadline_s=1.0)
    for stated, wait_s, expected in (
        ({}, 10.0, ["urgent", "short", "long"]),
        ({}, 0.0, ["long", "short", "urgent"]),
        ({"kappa": 0.0}, 10.0, ["urgent", "long", "short"]),
        ({"kappa": float("inf")}, 0.0, ["short", "long", "urgent"]),
    ):
        request = trail_pb2.RankRequest(
            candidates=[short, long, urgent],
            policy=trail_pb2.Policy(name="adaptive", c=1.0, kv_reserve_tokens=-1, **stated),
            wait_s=wait_s,
        )
        assert [r.id for r in ranking.Rank(request).ranked] == expected
    sidecar.policy.set(PolicySpec("adaptive", kappa=2.0))
    policy = control.GetPolicy(trail_pb2.GetPolicyRequest())
    assert (policy.kappa, policy.preempt_ratio, policy.max_preemptions, policy.size) == (2.0, 2.0, 1, "point")


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (trail_pb2.Policy(name="best"), "best"),
        (trail_pb2.Policy(), "unknown policy"),
        (trail_pb2.Policy(name="oracle", c=1.5), "1.5"),
        (trail_pb2.Policy(name="oracle", c=float("nan")), "nan"),
        (trail_pb2.Policy(name="oracle", kv_reserve_tokens=float("inf")), "kv_reserve_tokens"),
        (trail_pb2.Policy(name="oracle", kappa=-1.0), "kappa is -1.0"),
        (trail_pb2.Policy(name="oracle", preempt_ratio=0.0), "preempt_ratio is 0.0"),
        (trail_pb2.Policy(name="oracle", size="gittins"), "cannot be gittins"),
    ],
)
def test_bad_policy_is_refused_and_changes_nothing(
    unix: grpc.Channel, policy: trail_pb2.Policy, word: str
) -> None:
    control = trail_pb2_grpc.ControlStub(unix)
    with pytest.raises(grpc.RpcError) as refused:
        control.SetPolicy(policy)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert word in refused.value.details()
    assert control.GetPolicy(trail_pb2.GetPolicyRequest()).generation == 1


def test_rank_answers_on_unix_socket_and_tcp_alike(unix: grpc.Channel, tcp: grpc.Channel) -> None:
    request = trail_pb2.RankRequest(
        candidates=[
            candidate("long", initial_prediction=90),
            candidate("old", initial_prediction=10, age=9, admitted=True),
            candidate("short", initial_prediction=5),
        ],
        policy=trail_pb2.Policy(name="trail", c=0.5),
    )
    answers = [trail_pb2_grpc.RankingStub(channel).Rank(request) for channel in (unix, tcp)]
    assert answers[0] == answers[1]
    assert [(r.id, r.rank, r.cutoff_age, r.preemptible) for r in answers[0].ranked] == [
        ("old", float("-inf"), 5, False), ("short", 5, 2, False), ("long", 90, 45, False),
    ]  # fmt: skip


def test_rank_without_a_policy_uses_the_sidecars_own(unix: grpc.Channel) -> None:
    request = trail_pb2.RankRequest(
        candidates=[
            candidate("a", initial_prediction=1, exact_output_tokens=50),
            candidate("b", exact_output_tokens=9),
        ]
    )
    ranked = trail_pb2_grpc.RankingStub(unix).Rank(request).ranked
    assert [(r.id, r.rank) for r in ranked] == [("b", 9), ("a", 50)]


def test_rank_names_the_field_that_is_wrong(tcp: grpc.Channel) -> None:
    ranking = trail_pb2_grpc.RankingStub(tcp)
    for request, words in (
        (trail_pb2.RankRequest(candidates=[candidate("a", initial_prediction=-3)]), "initial_prediction"),
        (trail_pb2.RankRequest(policy=trail_pb2.Policy(name="x")), "policy: unknown policy"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            ranking.Rank(request)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert words in refused.value.details()


def test_tcp_offers_nothing_that_changes_or_describes(tcp: grpc.Channel) -> None:
    control = trail_pb2_grpc.ControlStub(tcp)
    for call, message in (
        (control.SetPolicy, trail_pb2.Policy(name="fcfs")),
        (control.Describe, trail_pb2.DescribeRequest()),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(message)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    check = health_pb2_grpc.HealthStub(tcp).Check(health_pb2.HealthCheckRequest(service="trail.v1.Ranking"))
    assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_stream_that_does_not_say_hello_is_refused(sidecar: Sidecar) -> None:
    stream = EngineStream(sidecar.config.directory)
    stream.send(load=trail_pb2.Load(running=1))
    error = stream.call.exception(timeout=10)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "must carry hello" in error.details()
    stream.close()


def test_engine_beyond_the_configured_number_is_refused(sidecar: Sidecar) -> None:
    stream = EngineStream(sidecar.config.directory)
    stream.hello(engine=2)
    error = stream.call.exception(timeout=10)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "hello.engine is 2, the sidecar serves engines 0 to 1; set TRAIL_ENGINES" in error.details()
    stream.close()


def test_engines_have_boards_of_their_own(sidecar: Sidecar) -> None:
    streams = [EngineStream(sidecar.config.directory) for _ in range(2)]
    for engine, stream in enumerate(streams):
        stream.hello(engine=engine)
        stream.send(started=[trail_pb2.RequestStarted(key=engine + 1, slot=0, exact_output_tokens=9)])
    until(lambda: [len(pipeline.tracker) for pipeline in sidecar.pipelines.values()] == [1, 1])
    assert [int(pipeline.tracker.key[0]) for pipeline in sidecar.pipelines.values()] == [1, 2]
    for stream in streams:
        stream.close()


def test_stream_is_answered_once_when_it_ends(sidecar: Sidecar) -> None:
    stream = EngineStream(sidecar.config.directory)
    stream.hello()
    until(lambda: sidecar.pipelines[0].hello is not None)
    stream._messages.put(None)
    assert stream.call.result(timeout=10) == trail_pb2.ReportEnd()
    stream.close()


def test_health_follows_the_loop(sidecar: Sidecar, unix: grpc.Channel) -> None:
    def status() -> int:
        sidecar.refresh_health()
        return int(health_pb2_grpc.HealthStub(unix).Check(health_pb2.HealthCheckRequest()).status)

    until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)
    pipeline = sidecar.pipelines[0]
    gate = threading.Event()
    pipeline.step = lambda: gate.wait(30)  # type: ignore[method-assign]  # the loop hangs in this pipeline
    until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
    del pipeline.step  # type: ignore[method-assign]  # back to the method
    gate.set()
    until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)


def test_directory_has_one_holder_at_a_time(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path)
    with pytest.raises(SidecarError, match="another sidecar already serves"):
        DirectoryLock(tmp_path)
    first.release()
    DirectoryLock(tmp_path).release()


def test_failed_start_leaves_nothing_behind(config: SidecarConfig, sidecar: Sidecar, tmp_path: Path) -> None:
    other = Sidecar(replace(config, directory=tmp_path / "other", rank_address=sidecar.config.rank_address))
    with pytest.raises(SidecarError, match="cannot listen on"):
        other.start()
    other.close()
    assert list((tmp_path / "other").iterdir()) == []
