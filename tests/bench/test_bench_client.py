"""The load generator keeps an open loop, and counts every way a request can go wrong by its name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp.test_utils import TestServer
from fake_openai import FakeServer

from trail.bench.client import COMPLETED, CUT, FAILED, REJECTED, ClientRun, run_requests
from trail.bench.workload import BenchRequest, Prompt
from trail.wire.names import XARG_OUTPUT_TOKENS


@asynccontextmanager
async def serving(fake: FakeServer) -> AsyncIterator[str]:
    async with TestServer(fake.app()) as server:
        yield f"http://127.0.0.1:{server.port}"


def requests(n: int, gap_s: float = 0.0, tokens: int = 10) -> list[BenchRequest]:
    return [BenchRequest(i, Prompt(tuple(range(tokens)), None), i * gap_s, 1000 + i, 64) for i in range(n)]


async def send(url: str, items: list[BenchRequest], **options: object) -> ClientRun:
    given = {"model": "m", "temperature": 1.0, "run_id": "r0-fcfs", "timeout_s": 10.0} | options
    return await run_requests(url, items, **given)  # type: ignore[arg-type]  # a test's bag of options


async def test_completed_requests_carry_times_tokens_and_a_digest_of_the_tokens() -> None:
    fake = FakeServer(pause_s=0.005)
    async with serving(fake) as url:
        run = await send(url, requests(3))
    assert [o.outcome for o in run.outcomes] == [COMPLETED] * 3
    for o in run.outcomes:
        assert o.output_tokens == 20
        assert sum(o.token_counts) == 20
        assert o.prompt_tokens == 10
        assert o.ttft_s is not None
        assert o.latency_s is not None
        assert 0 < o.ttft_s < o.latency_s
        assert o.tpot_s == pytest.approx((o.latency_s - o.ttft_s) / 19)
    assert len({o.digest for o in run.outcomes}) == 3, "other seeds give other tokens, hence other digests"


async def test_same_tokens_in_other_chunks_have_the_same_digest() -> None:
    async with serving(FakeServer()) as url:
        first = await send(url, requests(1))
        again = await send(url, requests(1))
    assert first.outcomes[0].digest == again.outcomes[0].digest


async def test_requests_say_what_they_want_and_who_they_are() -> None:
    fake = FakeServer()
    async with serving(fake) as url:
        await send(url, requests(2), exact_tokens={1: 77})
    by_seed = {b["seed"]: b for b in fake.bodies}
    assert "vllm_xargs" not in by_seed[1000]
    assert by_seed[1001]["vllm_xargs"] == {XARG_OUTPUT_TOKENS: 77}
    assert by_seed[1000]["prompt"] == list(range(10))
    assert by_seed[1000]["return_token_ids"] is True
    assert by_seed[1000]["stream_options"] == {"include_usage": True}
    assert set(fake.request_ids) == {"r0-fcfs-0", "r0-fcfs-1"}


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        ("refuse", REJECTED, "HTTP 404"),
        ("drop", CUT, ""),
        ("silent-end", CUT, "stream ended after 6 tokens"),
        ("lost-token", CUT, "the server counted 21"),
        ("hang", CUT, "time limit"),
        ("error-event", FAILED, "engine died"),
        ("no-ids", FAILED, "return_token_ids"),
    ],
)
async def test_a_fault_is_counted_under_its_name_and_leaves_others_alone(
    fault: str, outcome: str, reason: str
) -> None:
    fake = FakeServer(fault=lambda body: fault if body["seed"] == 1001 else "")
    async with serving(fake) as url:
        run = await send(url, requests(3), timeout_s=1.0 if fault == "hang" else 10.0)
    assert [o.outcome for o in run.outcomes] == [COMPLETED, outcome, COMPLETED]
    broken = run.outcomes[1]
    assert reason in broken.reason
    assert broken.latency_s is None
    assert broken.digest == "", "text of a broken answer is never compared"


async def test_nobody_listening_is_a_failure_of_every_request() -> None:
    async with serving(FakeServer()) as url:
        pass
    run = await send(url, requests(2))
    assert [o.outcome for o in run.outcomes] == [FAILED, FAILED]
    assert all("ClientConnectorError" in o.reason for o in run.outcomes)


async def test_arrivals_do_not_wait_for_earlier_answers() -> None:
    """All eight are at the server before the first has ended, which a closed loop never shows."""
    inside, most = 0, 0
    release = asyncio.Event()

    class Counting(FakeServer):
        async def complete(self, request):  # type: ignore[no-untyped-def]  # as the parent's
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            if inside == 8:
                release.set()
            await release.wait()
            try:
                return await super().complete(request)
            finally:
                inside -= 1

    async with serving(Counting()) as url:
        run = await asyncio.wait_for(send(url, requests(8, gap_s=0.01)), 20)
    assert most == 8
    assert all(o.outcome == COMPLETED for o in run.outcomes)


async def test_times_count_from_the_arrival_even_when_sending_was_late() -> None:
    async with serving(FakeServer()) as url:
        run = await send(url, requests(4, gap_s=0.02))
    for o in run.outcomes:
        assert o.ttft_s is not None
        assert o.send_lag_s >= 0
        assert o.ttft_s >= o.send_lag_s
        assert o.token_times_s[0] == pytest.approx(o.arrival_s + o.ttft_s)


async def test_progress_counts_every_request() -> None:
    seen: list[tuple[int, int]] = []
    async with serving(FakeServer()) as url:
        await send(url, requests(5), on_progress=lambda sent, done: seen.append((sent, done)))
    assert seen[-1] == (5, 5)
