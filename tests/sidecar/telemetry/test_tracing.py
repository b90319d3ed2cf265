"""Spans and events as an OTLP receiver gets them, sampling, and collectors that are down, slow or refuse."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from service_kit import ending, until

from benchmarks.observe.receiver import ReceivedSpan, Receiver
from trail.policy.spec import PolicySpec
from trail.sidecar.pacing import SHARED_CORES
from trail.sidecar.requests.timeline import Moment, RequestTimeline, State
from trail.sidecar.telemetry import tracing as tracing_module
from trail.sidecar.telemetry.spans import SPAN, SpanMaker
from trail.sidecar.telemetry.trace_config import TraceConfig
from trail.sidecar.telemetry.tracing import TraceCollector, Tracing, make_tracing
from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import EngineSummary

S = 10**9
T0 = 1_700_000_000 * S
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
END = Moment(9 * S, Change.ENDED, 41)
Make = Callable[..., Tracing]


def traceparent(sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-{int(sampled):02x}"}


def lived(*, preempted: bool = True, **more: Any) -> RequestTimeline:
    """A request that arrived at T0 and ended 9 seconds later."""
    summary = EngineSummary(
        queued_ns=S // 2, admitted_ns=2 * S, first_token_ns=3 * S, ended_ns=9 * S, waited_ns=5 * S // 2,
        policy_preemptions=int(preempted), granted=2, denied=(Cause.RATIO, Cause.LIMIT),
        fallback_steps=4,
    )  # fmt: skip
    timeline = RequestTimeline(
        **{
            "engine": 0, "key": 5, "slot": 2, "request_id": "cmpl-5", "prompt_tokens": 3, "arrival_s": T0 / S,
            "wall_offset_ns": T0, "initial": 40.0, "initial_source": Cause.PROMPT, "refined": 42.5,
            "cutoff": 20, "protected": True, "admission_rank": 40.0, "state": State.ENDED,
            "trace_headers": traceparent(), **more,
        }
    )  # fmt: skip
    timeline.summary = summary
    timeline.ending = ending(
        41,
        recomputed_tokens=7,
        predictions=12,
        refined_mae=3.25,
        policy=PolicySpec("trail", 0.5),
        generation=3,
    )
    timeline.moments = [
        Moment(S // 2, Change.ARRIVED, 0),
        Moment(2 * S, Change.ADMITTED, 0, rank=40.0, remaining=40.0, cutoff=20),
        Moment(6 * S, Change.PREEMPTED, 25, Cause.SLOT, "cmpl-6", remaining=15.0, cutoff=20),
        END,
    ]
    return timeline


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver().start()
    yield receiver
    receiver.stop()


@pytest.fixture
def make(receiver: Receiver) -> Iterator[Make]:
    pacing = replace(SHARED_CORES, traces_send_every_s=0.02)
    made: list[Tracing] = []

    def tracing(endpoint: str = "", **more: Any) -> Tracing:
        made.append(make_tracing(TraceConfig(endpoint or receiver.endpoint, **more), pacing))
        made[-1].start()
        return made[-1]

    yield tracing
    for one in made:
        one.stop(0.2)


def end(tracing: Tracing, *timelines: RequestTimeline) -> None:
    for timeline in timelines:
        tracing.moment(timeline, END)


def test_a_span_continues_the_clients_trace_and_says_what_became_of_the_request(
    receiver: Receiver, make: Make
) -> None:
    tracing = make()
    end(tracing, lived())
    (span,) = until(lambda: receiver.spans)
    assert (span.name, span.service) == (SPAN, "trail-sidecar")
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert (span.start_ns, span.end_ns) == (T0, T0 + 9 * S)
    assert span.attributes == {
        "trail.request.id": "cmpl-5",
        "trail.engine": 0,
        "trail.request.priority": 0,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 41,
        "gen_ai.response.finish_reasons": ["stop"],
        "trail.prediction.initial_tokens": 40.0,
        "trail.prediction.source": "prompt",
        "trail.prediction.refined_tokens": 42.5,
        "trail.prediction.refined_mae_tokens": 3.25,
        "trail.cutoff_age": 20,
        "trail.protected": True,
        "trail.rank_at_admission": 40.0,
        "trail.wait.admission_seconds": 1.5,
        "trail.wait.total_seconds": 2.5,
        "trail.first_token_seconds": 3.0,
        "trail.preemptions.granted": 2,
        "trail.preemptions.by_policy": 1,
        "trail.preemptions.by_memory": 0,
        "trail.preemptions.denied": ["limit", "ratio"],
        "trail.recomputed_tokens": 7,
        "trail.fallback_steps": 4,
        "trail.found_open": False,
        "trail.policy": "trail-c0.5",
        "trail.policy.generation": 3,
        "trail.c": 0.5,
    }
    until(lambda: (tracing.spans, tracing.events) == (1, 2))


def test_events_are_log_records_of_the_span_one_a_state_change(receiver: Receiver, make: Make) -> None:
    end(make(), lived())
    events = until(lambda: receiver.events)
    (span,) = receiver.spans
    assert {(e.trace_id, e.span_id) for e in events} == {(TRACE, span.span_id)}
    assert [(e.name, e.time_ns - T0) for e in events] == [
        ("trail.request.admitted", 2 * S), ("trail.request.preempted", 6 * S),
    ]  # fmt: skip
    assert events[1].attributes == {
        "trail.age": 25, "trail.cause": "slot", "trail.other_request.id": "cmpl-6",
        "trail.prediction.remaining_tokens": 15.0, "trail.cutoff_age": 20,
    }  # fmt: skip


def made(config: TraceConfig, *timelines: RequestTimeline) -> list[Any]:
    maker = SpanMaker(config)
    for timeline in timelines:
        maker.make(timeline)
    spans, _ = maker.take()
    return list(spans)


def test_the_client_decides_and_the_ratio_where_it_says_nothing() -> None:
    config = TraceConfig("x", ratio=0.25)
    calm = [lived(preempted=False, trace_headers={}) for _ in range(2000)]
    assert 400 < len(made(config, *calm)) < 600
    assert all(span.parent is None for span in made(config, *calm[:20]))
    assert len(made(replace(config, ratio=0.0), lived(preempted=False))) == 1
    assert made(replace(config, ratio=1.0), lived(preempted=False, trace_headers=traceparent(False))) == []


def test_preempted_and_long_waiting_requests_can_be_kept() -> None:
    config = TraceConfig("x", ratio=0.0)
    unsampled = {"trace_headers": traceparent(False)}
    assert made(config, lived(**unsampled)) == []
    (span,) = made(
        replace(config, keep_preempted=True), lived(**unsampled), lived(preempted=False, **unsampled)
    )
    assert span.attributes["trail.kept"] == "preempted"
    assert f"{span.parent.span_id:016x}" == PARENT
    (span,) = made(replace(config, keep_waited_s=2.0), lived(preempted=False, **unsampled))
    assert span.attributes["trail.kept"] == "waited"
    assert made(replace(config, keep_waited_s=3.0), lived(**unsampled)) == []


def test_garbage_in_the_headers_makes_a_root_span() -> None:
    for headers in ({"traceparent": "00-zz-1-1"}, {"traceparent": ""}, {"tracestate": "a=b"}):
        (span,) = made(TraceConfig("x"), lived(trace_headers=headers))
        assert span.parent is None


def test_what_is_not_known_is_left_out(receiver: Receiver, make: Make) -> None:
    timeline = lived(initial=math.nan, initial_source=Cause.NONE, cutoff=-1, admission_rank=math.nan)
    timeline.summary = EngineSummary()
    end(make(), timeline)
    (span,) = until(lambda: receiver.spans)
    assert not {name for name in span.attributes if "initial_tokens" in name or "seconds" in name}
    assert span.attributes["trail.prediction.source"] == "none"
    assert span.end_ns == T0 + 9 * S


def counts(tracing: Tracing) -> int:
    return tracing.spans + sum(tracing.dropped.values()) + len(tracing._queue)


def test_a_collector_that_is_down_costs_spans_which_are_counted_and_it_may_come_back(
    receiver: Receiver, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    port = receiver.port
    receiver.stop()
    tracing = make()
    logging.getLogger("trail.sidecar").propagate = True
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            end(tracing, lived())
        until(lambda: tracing.dropped["export"] >= 1)
        until(lambda: not tracing._queue)
        again = Receiver(port).start()
        until(lambda: end(tracing, lived()) or again.spans, limit_s=60)
        until(lambda: "takes spans again" in caplog.text)
    again.stop()
    lines = [record for record in caplog.records if "traces:" in record.getMessage()]
    assert len(lines) == 2, [line.getMessage() for line in lines]
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]
    assert tracing.dropped_events >= 2


def test_a_collector_that_refuses_costs_a_counter(receiver: Receiver, make: Make) -> None:
    tracing = make()
    receiver.error = grpc.StatusCode.INVALID_ARGUMENT
    end(tracing, lived(), lived())
    until(lambda: tracing.dropped["export"] == 2)
    receiver.error = None
    end(tracing, lived())
    until(lambda: tracing.spans == 1)
    registry = CollectorRegistry()
    registry.register(TraceCollector(tracing))
    text = generate_latest(registry).decode()
    assert 'trail_spans_dropped_total{reason="export"} 2.0' in text
    assert "trail_spans_sent_total 1.0" in text


def test_a_slow_collector_fills_the_queue_and_no_more(
    receiver: Receiver, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing_module, "QUEUE_SIZE", 50)
    receiver.delay_s = 5.0
    tracing = make()
    end(tracing, lived())
    until(lambda: receiver.calls == 1)
    end(tracing, *(lived() for _ in range(200)))
    assert len(tracing._queue) == 50
    assert tracing.dropped["queue"] == 150
    assert receiver.spans == []  # the first is still being answered
    receiver.delay_s = 0.0
    until(lambda: len(receiver.spans) == 51)
    until(lambda: counts(tracing) == 201)


def test_a_span_that_cannot_be_made_costs_only_itself(receiver: Receiver, make: Make) -> None:
    tracing = make()
    broken = lived()
    broken.moments = None  # type: ignore[assignment]  # as no timeline is
    end(tracing, broken, lived(request_id="whole"))
    spans: list[ReceivedSpan] = until(lambda: receiver.spans)
    assert [span.attributes["trail.request.id"] for span in spans] == ["whole"]
    assert tracing.dropped["failed"] == 1


def test_what_is_left_at_the_end_is_sent_or_counted(receiver: Receiver, make: Make) -> None:
    tracing = make()
    end(tracing, *(lived() for _ in range(700)))
    tracing.stop(10.0)
    assert len(receiver.spans) + tracing.dropped["shutdown"] == 700
    assert tracing.spans == len(receiver.spans) == 700


def test_an_open_request_makes_no_span(receiver: Receiver, make: Make) -> None:
    tracing = make()
    timeline = lived()
    timeline.ending = None
    tracing.moment(timeline, timeline.moments[1])
    assert not tracing._queue
