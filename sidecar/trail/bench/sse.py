"""Reading a finished OpenAI completion stream: server-sent events with token ids and usage."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class StreamError(ValueError):
    """The stream says that the request went wrong, or is no completion stream."""


@dataclass
class Completion:
    """What one stream said. `token_times_s` has one time for every event that carried tokens."""

    tokens: int = 0
    token_times_s: list[float] = field(default_factory=list)
    token_counts: list[int] = field(default_factory=list)
    prompt_tokens: int | None = None
    usage_tokens: int | None = None
    finish_reason: str | None = None
    done: bool = False
    digest: str = ""

    @property
    def whole(self) -> bool:
        """Whether the stream reached its end and every token that the server counted arrived."""
        return self.done and self.finish_reason is not None and self.tokens == self.usage_tokens


def parse_stream(chunks: Sequence[tuple[float, bytes]]) -> Completion:
    """Parse body chunks, each with its time of arrival in seconds.

    An event belongs to the time at which its last byte arrived. Raises StreamError on an error event, on
    JSON that does not parse, and on events without token ids.
    """
    out = Completion()
    hasher = hashlib.sha256()
    rest = b""
    for at_s, data in chunks:
        *events, rest = (rest + data).split(b"\n\n")
        for event in events:
            payload = event.strip().removeprefix(b"data:").strip()
            if payload == b"[DONE]":
                out.done = True
            elif payload:
                _take(out, hasher, at_s, payload)
    out.digest = hasher.hexdigest()
    return out


def _take(out: Completion, hasher: Any, at_s: float, payload: bytes) -> None:
    try:
        event = json.loads(payload)
    except json.JSONDecodeError as e:
        raise StreamError(f"an event is no JSON: {payload[:80]!r}") from e
    if not isinstance(event, dict) or "error" in event:
        raise StreamError(f"the server reports an error in the stream: {str(event)[:200]}")
    if usage := event.get("usage"):
        out.prompt_tokens, out.usage_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    for choice in event.get("choices") or ():
        ids = choice.get("token_ids")
        if ids is None:
            raise StreamError("events carry no token_ids; the server does not know return_token_ids")
        if ids:
            hasher.update(b"".join(int(i).to_bytes(4, "little") for i in ids))
            out.tokens += len(ids)
            out.token_times_s.append(at_s)
            out.token_counts.append(len(ids))
        out.finish_reason = choice.get("finish_reason") or out.finish_reason
