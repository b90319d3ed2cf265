"""The sidecar's link on a real Redis: reports, follows, and outlives whatever Redis does."""

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
from loop_kit import REPORT, Plant, Pod, RedisServer, until

from trail.sidecar.logs import LOGGER_NAME
from trail.sidecar.pacing import SHARED_CORES
from trail.sidecar.redis.config import RedisConfig
from trail.sidecar.redis.link import LinkCollector, RedisLink
from trail.wire.redis_schema import CONTROL_SCRIPT, ControlRecord, Keys, decode_report, encode_control

QUICK = replace(SHARED_CORES, redis_report_every_s=0.1)

WORKLOAD = "shop/deployment/llama"
KEYS = Keys(WORKLOAD)


def write_c(client: Any, c: float, seen: int = 0) -> int:
    encoded = encode_control(ControlRecord(c, 0, "because"))
    args = [seen, KEYS.hint, encoded["version"], encoded["c"], encoded["reason"]]
    written, generation = client.register_script(CONTROL_SCRIPT)(keys=[KEYS.c], args=args)
    assert int(written) == 1
    return int(generation)


@pytest.fixture
def pod(server: RedisServer) -> Any:
    pod = Pod(server.url, WORKLOAD, "llama-0", Plant())
    yield pod
    pod.stop()


def test_it_reports_and_follows_c(server: RedisServer, pod: Pod) -> None:
    client = server.client()
    assert decode_report(until(lambda: client.hgetall(KEYS.pod("llama-0")))).c == 0.8
    first = write_c(client, 0.4)
    until(lambda: pod.c == 0.4)
    write_c(client, 0.2, first)
    until(lambda: pod.c == 0.2)
    until(lambda: decode_report(client.hgetall(KEYS.pod("llama-0"))).generation == pod.link.generation)
    assert [record.c for record in pod.told] == [0.4, 0.2]


def test_c_is_read_at_the_start_and_without_hints(server: RedisServer) -> None:
    client = server.client()
    generation = write_c(client, 0.4)
    pod = Pod(server.url, WORKLOAD, "llama-0", Plant())
    try:
        until(lambda: pod.c == 0.4)
        # Nothing is published: the hash alone says it.
        client.hset(KEYS.c, mapping={"c": "0.7", "generation": str(generation + 1)})
        until(lambda: pod.c == 0.7)
    finally:
        pod.stop()


def test_older_generations_and_rubbish_leave_the_last_good_value(server: RedisServer, pod: Pod) -> None:
    client = server.client()
    generation = write_c(client, 0.4)
    until(lambda: pod.c == 0.4)
    for change, seen in (
        ({"generation": str(generation - 5), "c": "0.9"}, lambda: pod.link.counters.stale),
        ({"generation": str(generation + 5), "c": "7"}, lambda: pod.link.counters.rejected.get("c")),
        ({"generation": "soon", "c": "0.9"}, lambda: pod.link.counters.rejected.get("generation")),
        ({"version": "99"}, lambda: pod.link.counters.rejected.get("version")),
    ):
        client.hset(KEYS.c, mapping=change)
        client.publish(KEYS.hint, "look")
        until(seen)
    client.delete(KEYS.c)
    client.publish(KEYS.hint, "look")
    client.set(KEYS.c, "not even a hash")
    client.publish(KEYS.hint, "look")
    until(lambda: pod.link.counters.failures)
    assert pod.c == 0.4
    client.delete(KEYS.c)
    write_c(client, 0.2)
    until(lambda: pod.c == 0.2)


def test_redis_killed_and_restarted(server: RedisServer, pod: Pod) -> None:
    generation = write_c(server.client(), 0.4)
    until(lambda: pod.c == 0.4)
    server.kill()
    until(lambda: pod.link.counters.failures)
    assert not until(lambda: not pod.link.counters.connected) or pod.c == 0.4
    server.start()
    until(lambda: pod.link.counters.connected)
    write_c(server.client(), 0.1, generation)
    until(lambda: pod.c == 0.1)


def test_a_redis_that_hangs_is_left_and_found_again(server: RedisServer, pod: Pod) -> None:
    until(lambda: pod.link.counters.connected)
    server.pause()
    until(lambda: not pod.link.counters.connected)
    server.resume()
    until(lambda: pod.link.counters.connected)


def test_an_error_of_our_own_part_does_not_end_the_link(server: RedisServer) -> None:
    asked = []

    def report() -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise RuntimeError("no pipelines yet")
        return replace(REPORT, waiting=math.inf) if len(asked) == 3 else REPORT

    config = RedisConfig(server.url, WORKLOAD, "llama-0")
    link = RedisLink(config, QUICK, report=report, apply=lambda _: None)
    link.start()
    try:
        until(lambda: link.counters.reports)
    finally:
        link.stop()
    assert link.counters.failures >= 3
    assert decode_report(server.client().hgetall(KEYS.pod("llama-0"))) == REPORT


def test_no_password_is_logged(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger(LOGGER_NAME).propagate = True
    url = server.url.replace("redis://", "redis://someone:hunter2@")
    config = RedisConfig(url, WORKLOAD, "llama-0")
    assert "hunter2" not in repr(config)
    link = RedisLink(config, QUICK, report=lambda: REPORT, apply=lambda _: None)
    link.start()
    try:
        until(lambda: link.counters.failures)
    finally:
        link.stop()
    assert "127.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text


def test_the_counters_are_metrics(server: RedisServer, pod: Pod) -> None:
    until(lambda: pod.link.counters.reports)
    write_c(server.client(), 0.4)
    until(lambda: pod.link.counters.applied)
    values = {s.name: s.value for family in LinkCollector(pod.link).collect() for s in family.samples}
    assert values["trail_redis_connected"] == 1
    assert values["trail_redis_reports_total"] >= 1
    assert values["trail_c_generation"] == pod.link.generation > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"url": "http://redis"}, "redis://"),
        ({"workload": "llama"}, "namespace/kind/name"),
        ({"pod": "a b"}, "pod"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    good = {"url": "redis://localhost", "workload": WORKLOAD, "pod": "llama-0"}
    with pytest.raises(ValueError, match=named):
        RedisConfig(**{**good, **change})
