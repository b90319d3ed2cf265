"""Open-loop load generator over the OpenAI streaming completions API.

Requests leave at their arrival times whatever became of earlier ones, and every time counts from the
*arrival*, so a late client makes latencies longer, never shorter. While a run goes, a chunk costs one clock
reading and one list append; streams are parsed afterwards.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from trail.bench.sse import Completion, StreamError, parse_stream
from trail.bench.workload import BenchRequest
from trail.wire.names import XARG_OUTPUT_TOKENS

COMPLETED, REJECTED, FAILED, CUT = "completed", "rejected", "failed", "cut"
OUTCOMES = (COMPLETED, REJECTED, FAILED, CUT)
"""rejected: an HTTP error status; failed: connection, timeout or error event; cut: the stream ended early."""

_LAG_PERIOD_S = 0.01


@dataclass(frozen=True)
class Outcome:
    """One request as the client saw it. Times in seconds since the arrival; None: did not come so far."""

    index: int
    request_id: str
    outcome: str
    reason: str
    arrival_s: float
    send_lag_s: float
    ttft_s: float | None = None
    latency_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int = 0
    finish_reason: str | None = None
    digest: str = ""
    token_times_s: tuple[float, ...] = ()
    """Since the start of the run, with `token_counts` tokens each."""
    token_counts: tuple[int, ...] = ()

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None below two tokens or without completion."""
        if (
            self.outcome != COMPLETED
            or self.ttft_s is None
            or self.latency_s is None
            or self.output_tokens < 2
        ):
            return None
        return (self.latency_s - self.ttft_s) / (self.output_tokens - 1)


@dataclass(frozen=True)
class ClientRun:
    """All requests of a run, and how far the client itself may be trusted."""

    outcomes: tuple[Outcome, ...]
    duration_s: float
    loop_lags_s: tuple[float, ...]


@dataclass
class _Raw:
    request: BenchRequest
    request_id: str
    sent_s: float = 0.0
    status: int | None = None
    error: str = ""
    chunks: list[tuple[float, bytes]] = field(default_factory=list)


def request_body(request: BenchRequest, *, model: str, temperature: float, exact_tokens: int | None) -> bytes:
    """The JSON body of one request. `exact_tokens` tells the oracle how long the answer will be."""
    prompt = request.prompt
    body: dict[str, object] = {
        "model": model,
        "prompt": list(prompt.token_ids) if prompt.token_ids is not None else prompt.text,
        "max_tokens": request.max_tokens,
        "temperature": temperature,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if exact_tokens is not None:
        body["vllm_xargs"] = {XARG_OUTPUT_TOKENS: exact_tokens}
    return json.dumps(body).encode()


async def run_requests(
    base_url: str,
    requests: Sequence[BenchRequest],
    *,
    model: str,
    temperature: float,
    run_id: str,
    timeout_s: float,
    exact_tokens: Mapping[int, int] | None = None,
    on_progress: Callable[[int, int], None] = lambda _sent, _done: None,
) -> ClientRun:
    """Send all requests at their arrival times and wait for the last to end.

    `run_id` begins every request's `X-Request-Id`; `timeout_s` bounds one request from sending to end.
    """
    loop = asyncio.get_running_loop()
    exact = exact_tokens or {}
    bodies = [
        request_body(r, model=model, temperature=temperature, exact_tokens=exact.get(r.index))
        for r in requests
    ]
    raws = [_Raw(r, f"{run_id}-{r.index}") for r in requests]
    sent = done = 0
    lags: list[float] = []
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    url = f"{base_url}/v1/completions"
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        start_s = loop.time()

        async def one(raw: _Raw, body: bytes) -> None:
            nonlocal done
            raw.sent_s = loop.time() - start_s
            await _exchange(session, url, raw, body, lambda: loop.time() - start_s)
            done += 1
            on_progress(sent, done)

        watch = asyncio.create_task(_watch_lag(lags))
        try:
            async with asyncio.TaskGroup() as group:
                for raw, body in sorted(
                    zip(raws, bodies, strict=True), key=lambda rb: rb[0].request.arrival_s
                ):
                    wait_s = start_s + raw.request.arrival_s - loop.time()
                    if wait_s > 0:
                        await asyncio.sleep(wait_s)
                    sent += 1
                    on_progress(sent, done)
                    group.create_task(one(raw, body))
        finally:
            watch.cancel()
        duration_s = loop.time() - start_s
    return ClientRun(tuple(_judge(raw) for raw in raws), duration_s, tuple(lags))


async def _exchange(
    session: aiohttp.ClientSession,
    url: str,
    raw: _Raw,
    body: bytes,
    clock: Callable[[], float],
) -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": raw.request_id}
    chunks = raw.chunks
    try:
        async with session.post(url, data=body, headers=headers) as response:
            raw.status = response.status
            async for data in response.content.iter_any():
                chunks.append((clock(), data))
    except TimeoutError:
        raw.error = "no end within the time limit"
    except (aiohttp.ClientError, OSError) as e:
        raw.error = f"{type(e).__name__}: {e}"


async def _watch_lag(lags: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(_LAG_PERIOD_S)
        lags.append(max(loop.time() - before - _LAG_PERIOD_S, 0.0))


def _judge(raw: _Raw) -> Outcome:
    arrival_s = raw.request.arrival_s

    def outcome(kind: str, reason: str, seen: Completion | None = None) -> Outcome:
        whole = kind == COMPLETED and seen is not None
        return Outcome(
            index=raw.request.index,
            request_id=raw.request_id,
            outcome=kind,
            reason=reason,
            arrival_s=arrival_s,
            send_lag_s=max(raw.sent_s - arrival_s, 0.0),
            ttft_s=seen.token_times_s[0] - arrival_s if seen and seen.token_times_s else None,
            latency_s=seen.token_times_s[-1] - arrival_s if whole and seen and seen.token_times_s else None,
            prompt_tokens=seen.prompt_tokens if seen else None,
            output_tokens=seen.tokens if seen else 0,
            finish_reason=seen.finish_reason if seen else None,
            digest=seen.digest if whole and seen else "",
            token_times_s=tuple(seen.token_times_s) if seen else (),
            token_counts=tuple(seen.token_counts) if seen else (),
        )

    if raw.status is not None and raw.status >= 400:
        text = b"".join(data for _, data in raw.chunks)[:200].decode(errors="replace")
        return outcome(REJECTED, f"HTTP {raw.status}: {text}")
    try:
        seen = parse_stream(raw.chunks)
    except StreamError as e:
        return outcome(FAILED, str(e))
    if raw.error:
        return outcome(CUT if seen.tokens else FAILED, raw.error, seen)
    if not seen.whole:
        return outcome(
            CUT, f"stream ended after {seen.tokens} tokens, the server counted {seen.usage_tokens}", seen
        )
    if not seen.tokens:
        return outcome(CUT, "the server ended the request without a token", seen)
    return outcome(COMPLETED, "", seen)
