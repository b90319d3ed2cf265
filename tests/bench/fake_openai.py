"""A server that speaks just enough of vLLM's completions API, with the faults a test asks for."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class FakeServer:
    """Answers `len(prompt) * 2` tokens, three a chunk. `fault` names what goes wrong for a request body."""

    fault: Callable[[dict[str, Any]], str] = lambda _body: ""
    pause_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/completions", self.complete)
        return app

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.request_ids.append(request.headers["X-Request-Id"])
        fault = self.fault(body)
        if fault == "refuse":
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        total = len(body["prompt"]) * 2
        tokens = [(body["seed"] + i) % 500 for i in range(total)]
        for begin in range(0, total, 3):
            part = tokens[begin : begin + 3]
            last = begin + 3 >= total
            if fault == "drop" and begin:
                request.transport.close()
                return response
            if fault == "hang" and begin:
                await asyncio.sleep(30)
            choice: dict[str, Any] = {
                "index": 0,
                "text": "x",
                "token_ids": part,
                "finish_reason": "stop" if last else None,
            }
            if fault == "no-ids":
                del choice["token_ids"]
            await self._send(response, {"choices": [choice]})
            await asyncio.sleep(self.pause_s)
            if fault == "error-event":
                await self._send(response, {"error": {"message": "engine died"}})
                return response
            if fault == "silent-end" and begin:
                return response
        counted = total + (1 if fault == "lost-token" else 0)
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": counted, "total_tokens": 0}
        await self._send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
