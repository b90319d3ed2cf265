"""Streams read the same however the network cut them into pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.bench.sse import StreamError, parse_stream


def event(ids: list[int], finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": "", "token_ids": ids, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def ending(tokens: int) -> bytes:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}}
    return b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n"


@given(
    st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4), min_size=1, max_size=8),
    st.lists(st.integers(1, 60), max_size=40),
)
def test_cutting_a_stream_anywhere_changes_neither_tokens_nor_digest(
    parts: list[list[int]], cuts: list[int]
) -> None:
    ids = [i for part in parts for i in part]
    events = [event(p, "stop" if n == len(parts) - 1 else None) for n, p in enumerate(parts)]
    body = b"".join(events) + ending(len(ids))
    whole = parse_stream([(1.0, body)])
    pieces, at = [], 0
    for n, size in enumerate(cuts):
        pieces.append((float(n), body[at : at + size]))
        at += size
    pieces.append((float(len(cuts)), body[at:]))
    cut = parse_stream(pieces)
    assert (cut.digest, cut.tokens, cut.token_counts) == (whole.digest, len(ids), [len(p) for p in parts])
    assert cut.whole
    assert cut.token_times_s == sorted(cut.token_times_s)


def test_an_event_is_dated_when_its_last_byte_arrived() -> None:
    data = event([7])
    seen = parse_stream([(1.0, data[:10]), (2.0, data[10:])])
    assert seen.token_times_s == [2.0]


@pytest.mark.parametrize("missing", ["done", "finish", "tokens"])
def test_a_stream_is_whole_only_with_its_end_its_reason_and_all_tokens(missing: str) -> None:
    body = event([1, 2], None if missing == "finish" else "stop")
    tail = ending(3 if missing == "tokens" else 2)
    body += tail.replace(b"data: [DONE]\n\n", b"") if missing == "done" else tail
    assert not parse_stream([(0.0, body)]).whole


def test_other_tokens_have_another_digest_even_if_their_bytes_could_be_run_together() -> None:
    assert parse_stream([(0, event([1, 23]))]).digest != parse_stream([(0, event([12, 3]))]).digest


@pytest.mark.parametrize("body", [b"data: {\n\n", b'data: {"error": {"message": "x"}}\n\n', b"data: [1]\n\n"])
def test_what_is_no_completion_stream_is_named(body: bytes) -> None:
    with pytest.raises(StreamError):
        parse_stream([(0.0, body)])
