"""Real vLLM under load: client span, vLLM's own span and TRAIL's in one trace, for every request."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from test_serving_vllm import START_LIMIT_S

from benchmarks.observe.receiver import ReceivedSpan, Receiver
from benchmarks.stack import stack_of
from trail.demo import demo_model_dir
from trail.demo.corpus import demo_prompts

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (demo_model_dir() / "config.json").is_file(), reason="the demo model is not here"),
]

REQUESTS = 200
SLOTS = ("--max-num-seqs", "8", "--block-size", "32", "--max-model-len", "1024")
SPANS_LIMIT_S = 60.0
LOOK_S = 0.5


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver().start()
    yield receiver
    receiver.stop()


@pytest.fixture
def url(receiver: Receiver, tmp_path: Path) -> Iterator[str]:
    """A server that is told nothing of traces but TRAIL's own variable."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    # Of a burst the short ones end first, for which predictions may look bad: order is wanted all the same.
    environ |= {"TRAIL_OTLP_ENDPOINT": receiver.endpoint, "TRAIL_QUALITY": "watch"}
    with stack_of("demo", SLOTS, "trail-c0.8", tmp_path / "serve", environ=environ) as stack:
        stack.until_ready(START_LIMIT_S)
        yield f"{stack.base_url}/v1/completions"


def wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    """Looks go, not the clock: a machine that stands still for a while fails nothing."""
    for _ in range(int(limit_s / LOOK_S)):
        if condition():
            return
        time.sleep(LOOK_S)
    raise AssertionError("it never came true")


async def ask(session: aiohttp.ClientSession, tracer: Any, url: str, number: int, tokens: list[int]) -> str:
    """One request within a client span; counts the tokens that come. Returns its trace's id."""
    with tracer.start_as_current_span("POST /v1/completions", kind=SpanKind.CLIENT) as span:
        headers: dict[str, str] = {}
        inject(headers)
        body = {
            "model": "demo", "prompt": tokens, "max_tokens": 300, "temperature": 0, "stream": True,
            "return_token_ids": True,
        }  # fmt: skip
        count = 0
        async with session.post(url, json=body, headers=headers) as response:
            assert response.status == 200
            async for line in response.content:
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        count += len(choice.get("token_ids") or ())
        span.set_attribute("test.tokens", count)
        span.set_attribute("test.number", number)
        return f"{span.get_span_context().trace_id:032x}"


async def ask_all(tracer: Any, url: str) -> list[str]:
    prompts = demo_prompts(REQUESTS, 7)
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        return await asyncio.gather(
            *(ask(session, tracer, url, i, list(prompt.token_ids)) for i, prompt in enumerate(prompts))
        )


def by_trace(receiver: Receiver, name: str) -> dict[str, list[ReceivedSpan]]:
    spans: dict[str, list[ReceivedSpan]] = {}
    for span in receiver.spans:
        if span.name == name:
            spans.setdefault(span.trace_id, []).append(span)
    return spans


def test_every_trace_holds_client_engine_and_scheduling_with_the_right_parents(
    receiver: Receiver, url: str
) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "client"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(receiver.endpoint, insecure=True)))
    traces = asyncio.run(ask_all(provider.get_tracer("client"), url))
    provider.force_flush()
    assert len(set(traces)) == REQUESTS

    names = ("POST /v1/completions", "llm_request", "trail.schedule")
    wait_for(lambda: all(len(by_trace(receiver, name)) >= REQUESTS for name in names), SPANS_LIMIT_S)
    client, engine, ours = (by_trace(receiver, name) for name in names)
    assert set(client) == set(engine) == set(ours) == set(traces)
    preempted = unpredicted = 0
    for trace in traces:
        (root,), (served,), (scheduled,) = client[trace], engine[trace], ours[trace]
        assert root.parent_id == ""
        assert served.parent_id == scheduled.parent_id == root.span_id
        got = root.attributes["test.tokens"]
        assert got > 0
        assert scheduled.attributes["gen_ai.usage.output_tokens"] == got
        assert served.attributes["gen_ai.usage.completion_tokens"] == got
        assert scheduled.service == "trail-sidecar"
        unpredicted += scheduled.attributes["trail.prediction.source"] == "none"
        assert root.start_ns <= scheduled.start_ns < scheduled.end_ns <= root.end_ns
        assert scheduled.attributes["trail.wait.admission_seconds"] >= 0
        preempted += scheduled.attributes["trail.preemptions.by_policy"]
    events = receiver.events
    of_span = {(span.trace_id, span.span_id) for spans in ours.values() for span in spans}
    assert {(event.trace_id, event.span_id) for event in events} == of_span
    told = [event.name for event in events]

    def telling(*names: str) -> set[tuple[str, str]]:
        """Spans with an event of one of these names."""
        return {(e.trace_id, e.span_id) for e in events if e.name in {f"trail.request.{n}" for n in names}}

    # One that the stream's start overtook is found running.
    assert telling("admitted", "found") == telling("first_token") == of_span
    assert len(of_span) == REQUESTS
    assert told.count("trail.request.preempted") == told.count("trail.request.resumed") >= preempted
    assert unpredicted < REQUESTS / 4, "only those that end at once may be faster than their prediction"
    assert preempted > 0, "eight slots for 200 requests of very different lengths"
