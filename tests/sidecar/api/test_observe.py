"""Observe on real sockets: explain, watch, backlog and snapshot, and `trail explain` on top."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from service_kit import EngineStream, until

from trail.cli import main
from trail.policy.spec import PolicySpec
from trail.sidecar.config import SidecarConfig
from trail.sidecar.history import watch
from trail.sidecar.sidecar import Sidecar
from trail.wire.names import socket_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

S = 10**9
NOW_NS = time.monotonic_ns() - 60 * S  # the engine has done all this when the sidecar hears of it
WALL_NS = time.time_ns() - 60 * S
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def sidecar(tmp_path: Path, unused_tcp_port: int) -> Iterator[Sidecar]:
    config = SidecarConfig(
        directory=tmp_path / "shared", predictor=None, policy=PolicySpec("oracle", 0.5), metrics_port=-1
    )
    sidecar = Sidecar(replace(config, rank_address=f"127.0.0.1:{unused_tcp_port}", engines=2))
    sidecar.start()
    yield sidecar
    sidecar.close()


@pytest.fixture(params=["unix", "tcp"])
def observe(sidecar: Sidecar, request: pytest.FixtureRequest) -> Iterator[Any]:
    unix = f"unix:{socket_path(sidecar.config.directory)}"
    with grpc.insecure_channel(unix if request.param == "unix" else sidecar.config.rank_address) as channel:
        yield trail_pb2_grpc.ObserveStub(channel)


@pytest.fixture
def engine(sidecar: Sidecar) -> Iterator[EngineStream]:
    stream = EngineStream(sidecar.config.directory)
    stream.hello(model="m", max_model_len=4096)
    yield stream
    stream.close()


def clocks() -> dict[str, int]:
    return {"monotonic_ns": NOW_NS, "wall_ns": WALL_NS}


def begin(stream: EngineStream, key: int, length: int = 40) -> None:
    stream.send(
        started=[
            trail_pb2.RequestStarted(
                key=key, request_id=f"cmpl-{key}", slot=key, prompt_token_ids=[1, 2, 3], max_tokens=99,
                arrival_time_s=WALL_NS / 1e9, exact_output_tokens=length, initial_prediction=length,
                trace_headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
                passage=trail_pb2.Passage(queued_ns=NOW_NS),
            )
        ],
        **clocks(),
    )  # fmt: skip


def change(stream: EngineStream, key: int, what: int, after_s: float, **more: Any) -> None:
    changed = trail_pb2.RequestChanged(key=key, change=what, time_ns=NOW_NS + int(after_s * S), **more)
    stream.send(changed=[changed], **clocks())


def a_life(stream: EngineStream) -> None:
    """Request 5 runs, gives its slot to 6, and ends; 6 is refused 5's place before."""
    begin(stream, 5)
    begin(stream, 6, length=4)
    change(stream, 5, trail_pb2.CHANGE_ADMITTED, 1, rank=40.0)
    change(stream, 5, trail_pb2.CHANGE_FIRST_TOKEN, 1.5, age=1)
    change(stream, 6, trail_pb2.CHANGE_DENIED, 2, cause=trail_pb2.CAUSE_RATIO, other=5, rank=4.0)
    change(stream, 5, trail_pb2.CHANGE_PREEMPTED, 3, age=9, cause=trail_pb2.CAUSE_SLOT, other=6)
    change(stream, 6, trail_pb2.CHANGE_ADMITTED, 3, rank=4.0)
    change(stream, 5, trail_pb2.CHANGE_RESUMED, 4, age=9, rank=31.0)


def end(stream: EngineStream) -> None:
    passage = trail_pb2.Passage(
        queued_ns=NOW_NS, admitted_ns=NOW_NS + S, first_token_ns=NOW_NS + 3 * S // 2, ended_ns=NOW_NS + 8 * S,
        waited_ns=2 * S, policy_preemptions=1, fallback_steps=3,
    )  # fmt: skip
    stream.send(
        finished=[
            trail_pb2.RequestFinished(
                key=5, slot=5, output_tokens=41, preemptions=1, recomputed_tokens=12, finish_reason="length",
                passage=passage,
            )
        ],
        **clocks(),
    )  # fmt: skip


def test_an_open_request_is_explained(observe: Any, engine: EngineStream, sidecar: Sidecar) -> None:
    a_life(engine)
    life = until(lambda: (a := first(observe, "cmpl-5")) is not None and a.state == 2 and a.age == 9 and a)
    assert (life.request_id, life.engine, life.state, life.trace_id) == ("cmpl-5", 0, 2, TRACE)
    assert (life.policy.name, life.policy.c, life.policy_text) == ("oracle", 0.5, "oracle-c0.5")
    assert (life.initial_prediction, life.initial_source) == (40.0, trail_pb2.CAUSE_ENGINE)
    assert (life.policy_preemptions, life.age, life.admission_rank) == (1, 9, 40.0)
    assert life.admission_s == pytest.approx(1.0)
    assert life.queued_s == pytest.approx(2.0)
    assert life.first_token_s == pytest.approx(1.5, abs=1e-3)
    told = [(m.change, m.cause, m.other) for m in life.moments if m.change != trail_pb2.CHANGE_PREDICTED]
    assert told == [
        (trail_pb2.CHANGE_ARRIVED, 0, ""),
        (trail_pb2.CHANGE_ADMITTED, 0, ""),
        (trail_pb2.CHANGE_FIRST_TOKEN, 0, ""),
        (trail_pb2.CHANGE_PREEMPTED, trail_pb2.CAUSE_SLOT, "cmpl-6"),
        (trail_pb2.CHANGE_RESUMED, 0, ""),
    ]
    other = explain(observe, "cmpl-6")
    assert (other.granted, list(other.denied)) == (1, [trail_pb2.CAUSE_RATIO])


def explain(observe: Any, name: str) -> Any:
    return observe.Explain(trail_pb2.ExplainRequest(request_id=name))


def test_a_request_that_ended_is_explained_by_the_engines_sum(observe: Any, engine: EngineStream) -> None:
    a_life(engine)
    end(engine)
    life = until(lambda: (a := first(observe, "cmpl-5")) is not None and a.state == 3 and a)
    assert (life.age, life.finish_reason, life.recomputed_tokens, life.fallback_steps) == (
        41,
        "length",
        12,
        3,
    )
    assert life.total_s == pytest.approx(8.0, abs=1e-3)
    assert trail_pb2.CHANGE_ENDED in [moment.change for moment in life.moments]
    assert not life.HasField("predicted_remaining")


def first(observe: Any, name: str) -> Any:
    try:
        return explain(observe, name)
    except grpc.RpcError:
        return None


def test_unknown_and_ambiguous_requests_are_refused_with_a_sentence(
    observe: Any, engine: EngineStream
) -> None:
    a_life(engine)
    until(lambda: first(observe, "cmpl-6"))
    for name, code, words in (
        ("nobody", grpc.StatusCode.NOT_FOUND, "no request 'nobody' is open"),
        ("cmpl-", grpc.StatusCode.INVALID_ARGUMENT, "2 requests begin with 'cmpl-', as cmpl-5, cmpl-6"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "request_id is empty"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            explain(observe, name)
        assert refused.value.code() == code
        assert words in refused.value.details()


def test_watching_shows_every_decision_and_the_whole_life_at_its_end(
    observe: Any, engine: EngineStream
) -> None:
    everything = observe.Watch(trail_pb2.WatchRequest())
    ends = observe.Watch(trail_pb2.WatchRequest(ends_only=True))
    for call in (everything, ends):
        dict(call.initial_metadata())  # it is heard
    a_life(engine)
    end(engine)
    seen = []
    for decision in everything:
        seen.append((decision.request_id, decision.moment.change))
        assert decision.HasField("life") == (decision.moment.change == trail_pb2.CHANGE_ENDED)
        if decision.HasField("life"):
            break
    assert {name for name, _ in seen} == {"cmpl-5", "cmpl-6"}
    assert ("cmpl-6", trail_pb2.CHANGE_DENIED) in seen
    whole = next(ends)
    assert (whole.request_id, whole.life.age, whole.missed) == ("cmpl-5", 41, 0)
    everything.cancel()
    ends.cancel()


def test_watchers_are_limited_and_leave_room_when_they_go(observe: Any, sidecar: Sidecar) -> None:
    calls = [observe.Watch(trail_pb2.WatchRequest()) for _ in range(watch.WATCHERS)]
    for call in calls:
        dict(call.initial_metadata())
    with pytest.raises(grpc.RpcError) as refused:
        next(observe.Watch(trail_pb2.WatchRequest()))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
    until(lambda: not sidecar.watch._subscriptions)


def test_a_slow_watcher_misses_decisions_and_is_told_how_many(
    observe: Any, engine: EngineStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = watch.WatchHub()
    monkeypatch.setattr(watch, "QUEUE_SIZE", 2)
    slow = hub.subscribe()
    assert slow is not None
    for _ in range(5):
        hub.moment(None, None)  # type: ignore[arg-type]  # handed on as it is
    assert slow.missed == 3
    assert slow.take(0) is not None
    hub.moment(None, None)  # type: ignore[arg-type]
    assert [seen.missed for seen in (slow.take(0), slow.take(0)) if seen] == [0, 3]


def test_the_backlog_counts_what_is_predicted_yet(observe: Any, engine: EngineStream) -> None:
    a_life(engine)
    begin(engine, 7, length=30)

    def settled() -> Any:
        one, two = observe.Backlog(trail_pb2.BacklogRequest()).engines
        return (one.waiting_requests, one.running_requests) == (1, 2) and two.engine == 1 and one

    one = until(settled)
    assert (one.model, one.waiting_tokens, one.ordering) == ("m", 30.0, True)
    assert one.running_tokens == (40 - 9) + 4


def test_a_snapshot_holds_what_a_live_view_shows(observe: Any, engine: EngineStream) -> None:
    a_life(engine)
    end(engine)
    begin(engine, 7, length=30)
    begin(engine, 8, length=3)

    def snapshot(requests: int) -> Any:
        return observe.Snapshot(trail_pb2.SnapshotRequest(requests=requests))

    until(lambda: (s := snapshot(9)).engines[0].ended_total == 1 and len(s.engines[0].waiting) == 2)
    whole = snapshot(9)
    one = whole.engines[0]
    assert [life.request_id for life in one.waiting] == ["cmpl-8", "cmpl-7"]
    assert [life.request_id for life in one.running] == ["cmpl-6"]
    assert [(life.request_id, life.age) for life in one.ended] == [("cmpl-5", 41)]
    assert not one.ended[0].moments
    assert (one.policy_preemptions_total, dict(one.denied_total)) == (1, {"ratio": 1})
    assert (whole.policy_text, whole.description.policy.name) == ("oracle-c0.5", "oracle")
    assert not snapshot(0).engines[0].waiting
    assert len(snapshot(1).engines[0].waiting) == 1


def test_trail_explain_prints_a_timeline(
    engine: EngineStream, sidecar: Sidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    a_life(engine)
    end(engine)
    until(lambda: sidecar.pipelines[0].timelines.ended_total)
    for where in (["--dir", str(sidecar.config.directory)], ["--address", sidecar.config.rank_address]):
        assert main(["explain", "cmpl-5", *where]) == 0
        text = capsys.readouterr().out
        for words in (
            "cmpl-5  has ended, engine 0, policy oracle-c0.5",
            "prompt of 3 tokens",
            f"trace {TRACE}",
            "started after 1.00 s, first token after 1.50 s, 2.00 s in the queue in all, done after 8.00 s",
            "preempted 1 times by the policy, 0 times for want of memory, 12 tokens computed again",
            "3 engine steps without a live sidecar",
            "preempted: the policy gave its slot to cmpl-6, which comes before it, 31 to go as predicted",
            "resumed at rank 31",
            "ended (length)",
        ):
            assert words in text
    assert main(["explain", "cmpl-6", "--dir", str(sidecar.config.directory)]) == 0
    text = capsys.readouterr().out
    assert "kept waiting: cmpl-5 has not enough left to be worth a preemption" in text
    assert "1 gave way to it" in text


def test_trail_explain_says_what_is_wrong(
    sidecar: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_tcp_port_factory: Any
) -> None:
    assert main(["explain", "x", "--dir", str(sidecar.config.directory)]) == 1
    assert "no request 'x' is open" in capsys.readouterr().err
    assert main(["explain", "x", "--dir", str(tmp_path)]) == 2
    assert f"no sidecar: {tmp_path}/sidecar.sock does not exist" in capsys.readouterr().err
    assert main(["explain", "x", "--address", f"127.0.0.1:{unused_tcp_port_factory()}"]) == 2
    assert "no sidecar answers at" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main(["explain", "--help"])
    assert done.value.code == 0
    assert "REQUEST" in capsys.readouterr().out
