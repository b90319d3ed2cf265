"""The demo served under load with everything that can be observed switched on, and what came of it."""

import asyncio
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.observe.client import TracedClient
from benchmarks.observe.receiver import Receiver
from benchmarks.observe.series import Sampler
from benchmarks.observe.traces import ENGINE, SCHEDULE, join
from benchmarks.stack import stack_of
from trail.bench import arrivals
from trail.bench.workload import BenchRequest, Prompt, build_requests, repeat_rng
from trail.serving.setup import DEMO_MODEL
from trail.serving.stack import Stack
from trail.wire.names import ENV_OTLP_ENDPOINT

FORMAT = 1
_START_LIMIT_S = 300.0
_SPANS_LIMIT_S = 20.0
_MAX_TOKENS = 640
_VLLM = ("--max-num-seqs", "16", "--max-num-batched-tokens", "16384", "--block-size", "32")


@dataclass(frozen=True)
class Plan:
    """What is served: the policy, how many requests, and how many of them a second."""

    policy: str
    requests: int
    rate_per_s: float
    seed: int = 0


@dataclass(frozen=True)
class Came:
    """What became of the load: requests answered, how long it took, and columns of `series.COLUMNS`."""

    completed: int
    seconds: float
    series: Mapping[str, Sequence[float]]


async def observe(plan: Plan, log: Path) -> dict[str, Any]:
    """Serve, send, receive; the document of the page. Raises ServerError."""
    receiver = Receiver().start()
    try:
        environ = {**os.environ, ENV_OTLP_ENDPOINT: receiver.endpoint}
        stack = stack_of(DEMO_MODEL, _VLLM, plan.policy, log, environ=environ)
        try:
            stack.start()
            await asyncio.to_thread(stack.until_ready, _START_LIMIT_S)
            came = await _load(plan, stack, receiver)
        finally:
            # Ending, vLLM and the sidecar send what spans are left.
            await asyncio.to_thread(stack.stop)
        return document(
            plan,
            came,
            [asdict(span) for span in receiver.spans],
            [asdict(event) for event in receiver.events],
        )
    finally:
        receiver.stop()


async def _load(plan: Plan, stack: Stack, receiver: Receiver) -> Came:
    requests = _requests(plan)
    client = TracedClient(stack.base_url, DEMO_MODEL, receiver.endpoint)
    sampler = Sampler(str(stack.directory))
    sampler.start()
    began_s = time.monotonic()
    try:
        tokens = await client.send(requests)
        seconds = time.monotonic() - began_s
        await asyncio.to_thread(client.close)
        completed = sum(n >= 0 for n in tokens)
        await _until_spans(receiver, completed)
    finally:
        series = await asyncio.to_thread(sampler.stop)
    return Came(completed, seconds, series)


async def _until_spans(receiver: Receiver, wanted: int) -> None:
    """Return once vLLM's and TRAIL's spans of `wanted` requests are here, or after a while."""
    deadline_s = time.monotonic() + _SPANS_LIMIT_S
    while time.monotonic() < deadline_s:
        names = [span.name for span in receiver.spans]
        if min(names.count(ENGINE), names.count(SCHEDULE)) >= wanted:
            return
        await asyncio.sleep(0.2)


def _requests(plan: Plan) -> list[BenchRequest]:
    from trail.demo.corpus import demo_prompts

    rng = repeat_rng(plan.seed, 0)
    prompts = [Prompt(tuple(p.token_ids), None) for p in demo_prompts(plan.requests, plan.seed)]
    times_s = arrivals.gamma_gaps(plan.requests, plan.rate_per_s, 1.0, rng)
    return build_requests(prompts, times_s, [_MAX_TOKENS] * plan.requests, rng)


def document(
    plan: Plan,
    came: Came,
    spans: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the page shows, of what `came` of the load and what was received."""
    traces = join(spans, events)
    return {
        "format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": asdict(plan),
        "seconds": came.seconds,
        "completed": came.completed,
        "traces": len(traces),
        "whole_traces": sum(t.whole for t in traces),
        "lengths_agree": sum(t.length_agrees for t in traces),
        "preemptions": sum(t.preemptions for t in traces),
        "series": dict(came.series),
        "spans": [_plain(span) for span in spans],
        "events": [_plain(event) for event in events],
    }


def _plain(value: Any) -> Any:
    """As JSON can hold it: a rank of minus infinity (protected) becomes text."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
