"""The Secret of the embedded Redis: passwords are made once, and what follows from them is kept right."""

import base64
from collections.abc import Mapping

import pytest
from cluster_kit import SECRETS
from fake_api import FakeApi

from trail_operator.access import OPERATOR_USER, password, sidecar_user, users_file, valid_key, with_user
from trail_operator.cluster_api.kube import Kube, KubeError
from trail_operator.jobs.redis_secret import fill, filled, main

URL = "redis://trail-redis.trail-system.svc:6379/0"
PLACE = f"{SECRETS}/trail-redis-access"


def texts(data: Mapping[str, str]) -> dict[str, str]:
    return {name: base64.b64decode(text).decode() for name, text in data.items()}


async def filling(url: str = URL) -> bool:
    async with await Kube.connect() as kube:
        return await fill(kube, "trail-system", "trail-redis-access", url)


def test_two_installations_have_two_keys_and_a_filled_secret_stays() -> None:
    first, second = filled({}, URL), filled({}, URL)
    assert first != second
    assert filled(first, URL) == first
    found = texts(first)
    assert valid_key(found["key"])
    assert found["url"] == with_user(URL, found["key"], OPERATOR_USER)
    assert found["users.acl"] == users_file(found["key"])


def test_redis_itself_holds_no_password() -> None:
    found = texts(filled({}, URL))
    assert password(found["key"], OPERATOR_USER) in found["url"]
    assert password(found["key"], OPERATOR_USER) not in found["users.acl"]
    assert found["key"] not in found["users.acl"]


@pytest.mark.parametrize("key", ["", "short", "!" * 64, "g" * 64])
def test_a_key_that_is_none_is_made_anew(key: str) -> None:
    spoilt = {**filled({}, URL), "key": base64.b64encode(key.encode()).decode()}
    assert valid_key(texts(filled(spoilt, URL))["key"])
    assert valid_key(texts(filled({"key": "no base64!"}, URL))["key"])


def test_another_address_keeps_the_passwords() -> None:
    before = texts(filled({}, URL))
    after = texts(
        filled(filled({}, URL) | {"key": base64.b64encode(before["key"].encode()).decode()}, "redis://b/0")
    )
    assert after["key"] == before["key"]
    assert after["url"].endswith("@b/0")


def test_users_have_passwords_of_their_own() -> None:
    key = texts(filled({}, URL))["key"]
    users = [OPERATOR_USER, sidecar_user("a/deployment/b"), sidecar_user("a/deployment/c")]
    assert len({password(key, user) for user in users}) == len(users)


async def test_an_empty_secret_is_filled_once(api: FakeApi) -> None:
    api.put(PLACE, {"metadata": {"name": "trail-redis-access"}, "type": "Opaque"})
    assert await filling() is True
    before = api.objects[PLACE]["data"]
    assert await filling() is False
    assert api.objects[PLACE]["data"] == before
    assert api.objects[PLACE]["type"] == "Opaque"


async def test_of_two_replicas_one_makes_the_key(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.put(PLACE, {"metadata": {"name": "trail-redis-access"}})
    theirs = filled({}, URL)
    read = Kube.get

    async def somebody_is_faster(self: Kube, where: str) -> dict[str, object]:
        found = dict(await read(self, where))
        if not api.objects[PLACE].get("data"):
            api.put(PLACE, {"metadata": {"name": "trail-redis-access"}, "data": theirs})
        return found

    monkeypatch.setattr(Kube, "get", somebody_is_faster)
    assert await filling() is False
    assert api.objects[PLACE]["data"] == theirs


async def test_without_the_secret_or_the_right_it_says_so(api: FakeApi) -> None:
    with pytest.raises(KubeError, match="404"):
        await filling()
    api.refused.add(("GET", "secrets"))
    with pytest.raises(KubeError, match="403"):
        await filling()


def test_as_a_process(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--namespace", "trail-system", "--secret", "trail-redis-access", "--url", URL]
    assert main(words) == 1
    api.put(PLACE, {"metadata": {"name": "trail-redis-access"}})
    assert main(words) == 0
    assert set(api.objects[PLACE]["data"]) == {"key", "url", "users.acl"}
