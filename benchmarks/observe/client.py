"""An OpenTelemetry-instrumented client: one span a request, whose context goes along as `traceparent`."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, set_span_in_context

from benchmarks.observe.traces import CLIENT
from trail.bench.client import request_body
from trail.bench.workload import BenchRequest

_TIMEOUT_S = 600.0


class TracedClient:
    """Sends requests to vLLM's OpenAI server, spans to the OTLP receiver at `endpoint`."""

    def __init__(self, base_url: str, model: str, endpoint: str) -> None:
        self._url = f"{base_url}/v1/completions"
        self._model = model
        self._provider = TracerProvider(resource=Resource({SERVICE_NAME: "client"}), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True))
        )
        self._tracer = self._provider.get_tracer("benchmarks.observe")

    async def send(self, requests: Sequence[BenchRequest], temperature: float = 1.0) -> list[int]:
        """All requests at their arrival times; tokens that each got, -1 where it failed."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:

            async def one(request: BenchRequest) -> int:
                await asyncio.sleep(max(began_s + request.arrival_s - loop.time(), 0.0))
                return await self._one(http, request, temperature)

            return list(await asyncio.gather(*(one(request) for request in requests)))

    async def _one(self, http: aiohttp.ClientSession, request: BenchRequest, temperature: float) -> int:
        span = self._tracer.start_span(CLIENT, kind=SpanKind.CLIENT)
        headers = {"Content-Type": "application/json", "X-Request-Id": f"observe-{request.index}"}
        inject(headers, set_span_in_context(span))
        body = request_body(request, model=self._model, temperature=temperature, exact_tokens=None)
        tokens = -1
        try:
            async with http.post(self._url, data=body, headers=headers) as response:
                response.raise_for_status()
                tokens = _tokens(await response.text())
                span.set_attribute("client.output_tokens", tokens)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            span.record_exception(error)
        finally:
            span.end()
        return tokens

    def close(self) -> None:
        """Send what spans are left."""
        self._provider.force_flush()
        self._provider.shutdown()


def _tokens(stream: str) -> int:
    """Output tokens of a whole stream of server-sent events, counted one by one."""
    count = 0
    for line in stream.splitlines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk: Any = json.loads(line[len("data: ") :])
        count += sum(len(choice.get("token_ids") or ()) for choice in chunk.get("choices", ()))
    return count
