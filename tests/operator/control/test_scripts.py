"""The two scripts on a real Redis 6.2."""

import time
from typing import Any

import pytest
from loop_kit import REPORT, RedisServer

from trail.wire.redis_schema import (
    CONTROL_SCRIPT,
    GENERATION_LIMIT,
    REPORT_SCRIPT,
    ControlRecord,
    Keys,
    decode_control,
    decode_report,
    encode_control,
    encode_report,
)

KEYS = Keys("shop/deployment/llama")
SIDECAR_RIGHTS = [
    "resetkeys", "~trail:*", "resetchannels", "&trail:*", "-@all", "+eval", "+evalsha", "+script|load",
    "+time", "+hset", "+hgetall", "+del", "+pexpire", "+zadd", "+zremrangebyscore", "+xadd", "+subscribe",
    "+unsubscribe", "+ping", "+client|setinfo", "+client|setname",
]  # fmt: skip


def write(client: Any, seen: int, c: float = 0.2) -> tuple[int, int]:
    encoded = encode_control(ControlRecord(c, 0, "because"))
    args = [seen, KEYS.hint, encoded["version"], encoded["c"], encoded["reason"]]
    written, generation = client.register_script(CONTROL_SCRIPT)(keys=[KEYS.c], args=args)
    return int(written), int(generation)


def report(client: Any, pod: str = "llama-0", expiry_ms: int = 6000, entries: int = 10) -> int:
    fields = [x for pair in encode_report(REPORT).items() for x in pair]
    script = client.register_script(REPORT_SCRIPT)
    return int(script(keys=[KEYS.pod(pod), KEYS.pods, KEYS.history], args=[pod, expiry_ms, entries, *fields]))


def test_who_has_not_seen_the_newest_generation_does_not_write(server: RedisServer) -> None:
    client = server.client()
    written, first = write(client, 0, 0.2)
    assert written == 1
    assert write(client, 0, 0.9) == (0, first)
    assert write(client, first - 1, 0.9) == (0, first)
    written, second = write(client, first, 0.4)
    assert written == 1
    assert second > first
    held = decode_control(client.hgetall(KEYS.c))
    assert isinstance(held, ControlRecord)
    assert (held.c, held.generation, held.reason) == (0.4, second, "because")


def test_generations_grow_also_when_redis_has_lost_its_data(server: RedisServer) -> None:
    client = server.client()
    _, first = write(client, 0)
    client.flushall()
    time.sleep(0.002)
    _, second = write(client, 0)
    assert second > first
    _, third = write(client, second + 10**9)  # the writer knows of a later one than this Redis's clock
    assert third == second + 10**9 + 1


@pytest.mark.parametrize("held", ["rubbish", "nan", "-5", "1e300", str(GENERATION_LIMIT + 2)])
def test_a_generation_that_is_none_is_overwritten(server: RedisServer, held: str) -> None:
    client = server.client()
    client.hset(KEYS.c, mapping={"generation": held, "c": "7"})
    written, _ = write(client, 0)
    assert written == 1
    assert isinstance(decode_control(client.hgetall(KEYS.c)), ControlRecord)


def test_every_write_is_hinted_at(server: RedisServer) -> None:
    client = server.client()
    hints = client.pubsub(ignore_subscribe_messages=True)
    hints.subscribe(KEYS.hint)
    hints.get_message(timeout=5)
    _, generation = write(client, 0)
    message = hints.get_message(timeout=5)
    assert int(message["data"]) == generation


def test_a_report_is_whole_expires_and_keeps_a_bounded_history(server: RedisServer) -> None:
    client = server.client()
    client.hset(KEYS.pod("llama-0"), "left_by_an_older_build", "1")
    for _ in range(500):
        now_ms = report(client)
    raw = client.hgetall(KEYS.pod("llama-0"))
    assert b"left_by_an_older_build" not in raw
    assert decode_report(raw) == REPORT
    assert 0 < client.pttl(KEYS.pod("llama-0")) <= 6000
    assert client.zscore(KEYS.pods, "llama-0") == now_ms
    assert abs(now_ms - 1000 * time.time()) < 60_000
    assert 10 <= client.xlen(KEYS.history) < 200
    assert client.pttl(KEYS.pods) > 0
    assert client.pttl(KEYS.history) > 0


def test_pods_that_are_long_gone_leave_the_set(server: RedisServer) -> None:
    client = server.client()
    report(client, "gone", expiry_ms=1)
    time.sleep(0.05)
    report(client, "here", expiry_ms=1)
    assert client.zrange(KEYS.pods, 0, -1) == [b"here"]


def test_the_rights_that_the_docs_name_are_enough_and_no_more(server: RedisServer) -> None:
    client = server.client()
    client.execute_command("ACL", "SETUSER", "sidecar", "on", ">secret", *SIDECAR_RIGHTS)
    sidecar = server.client(username="sidecar", password="secret")  # noqa: S106
    assert report(sidecar) > 0
    assert sidecar.hgetall(KEYS.c) == {}
    for command in (
        ["GET", "trail:x"],
        ["HGETALL", "other"],
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["KEYS", "*"],
    ):
        with pytest.raises(Exception, match=r"(?i)permission|noperm"):
            sidecar.execute_command(*command)
