"""The admission server: whatever is sent gets a valid answer; certificates follow their files."""

import base64
import contextlib
import datetime
import json
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonpatch
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from operator_kit import (
    GOLDEN,
    admit,
    golden_view,
    load_documents,
    make_pod,
    make_policy,
    make_review,
    make_view,
)

from trail_operator.admission import review
from trail_operator.admission.inject import read_status
from trail_operator.admission.review import Outcome, answer
from trail_operator.admission.webhook import (
    Certificate,
    CertificateError,
    CertificateWatch,
    Webhook,
    listening,
)
from trail_operator.health import Health
from trail_operator.metrics import Metrics
from trail_operator.reasons import Reason

REVIEWS = 100_000
VIEW = make_view([make_policy(), make_policy("broken", everySteps=0)], namespace_labels={"open": "enabled"})


def check(body: bytes, sent: bytes, *, apply: bool = True) -> dict[str, Any]:
    """What an API server demands of an answer. Returns the response."""
    reply = json.loads(body)
    assert reply["kind"] == "AdmissionReview"
    assert reply["apiVersion"] in ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
    response = reply["response"]
    assert response["allowed"] is True
    assert isinstance(response["uid"], str)
    assert set(response) <= {"uid", "allowed", "patch", "patchType", "warnings"}
    assert ("patch" in response) == ("patchType" in response)
    if "patch" in response:
        assert response["patchType"] == "JSONPatch"
        assert isinstance(json.loads(base64.b64decode(response["patch"])), list)
    if apply and "patch" in response:
        patched = jsonpatch.apply_patch(
            json.loads(sent)["request"]["object"], base64.b64decode(response["patch"]).decode()
        )
        assert isinstance(patched["spec"]["containers"], list)
    assert all(isinstance(w, str) and len(w) <= 256 for w in response.get("warnings", ()))
    return dict(response)


RUBBISH: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    "",
    "x",
    "\ud800",
    "trail-sidecar",
    [],
    [None],
    {},
    {"a": None},
    [[]],
    {"name": 3},
    {"name": "vllm"},
    "enabled",
    {"trail.dev/inject": "enabled"},
    "disabled",
    "broken",
]


def damaged(random_: random.Random, value: Any, rate: float) -> Any:
    """A copy with parts exchanged, dropped, doubled."""
    if random_.random() < rate:
        return random_.choice(RUBBISH)
    if isinstance(value, dict):
        out = {k: damaged(random_, v, rate) for k, v in value.items() if random_.random() > rate / 2}
        if random_.random() < rate:
            out[random_.choice(["spec", "metadata", "containers", "env", "annotations", "uid"])] = (
                random_.choice(RUBBISH)
            )
        return out
    if isinstance(value, list):
        out_list = [damaged(random_, v, rate) for v in value if random_.random() > rate / 2]
        return out_list * 2 if random_.random() < rate else out_list
    return value


def reviews(count: int) -> Any:
    """Malformed reviews: real ones with damage in their objects or in their bytes, and noise."""
    random_ = random.Random(20260101)
    pods = [load_documents(path)[0] for path in sorted(GOLDEN.glob("*.pod.yaml"))]
    pods += [load_documents(path)[0] for path in sorted(GOLDEN.glob("*.injected.yaml"))]
    for number in range(count):
        kind = number % 10
        if kind == 0:
            yield random_.randbytes(random_.randrange(60))
            continue
        sent = json.loads(make_review(random_.choice(pods), random_.choice(["llm", "open", "x"])))
        if kind < 7:
            sent = damaged(random_, sent, random_.choice([0.002, 0.01, 0.05, 0.3]))
            yield json.dumps(sent).encode()
            continue
        raw = bytearray(json.dumps(sent).encode())
        for _ in range(random_.choice([1, 3, 30])):
            raw[random_.randrange(len(raw))] = random_.randrange(256)
        yield bytes(raw[: random_.randrange(len(raw))]) if kind == 9 else bytes(raw)


def test_a_hundred_thousand_malformed_reviews_get_a_valid_answer() -> None:
    kinds: dict[str, int] = {}
    answered = 0
    for sent in reviews(REVIEWS):
        found = answer(sent, VIEW)
        check(found.body, sent, apply=answered % 20 == 0)
        kinds[found.outcome.kind] = kinds.get(found.outcome.kind, 0) + 1
        answered += 1
    assert answered == REVIEWS
    # The damage reaches every kind of outcome.
    assert set(kinds) == {"injected", "skipped", "ignored", "malformed"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"{",
        b"[" * 100_000,
        b'{"request":null}',
        b"\xff\xfe",
        b'{"request":{"uid":{},"object":{"spec":{"containers":[]}},"namespace":"a"}}',
        b'{"apiVersion":["a"],"request":{"uid":"1"}}',
    ],
)
def test_what_is_no_review_is_answered(body: bytes) -> None:
    check(answer(body, VIEW).body, body)
    assert answer(body, VIEW).outcome.kind != "injected"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_the_answer_has_the_version_and_uid_of_the_review(version: str) -> None:
    reply = json.loads(answer(make_review(make_pod(), version=version), VIEW).body)
    assert reply["apiVersion"] == f"admission.k8s.io/{version}"
    assert reply["response"]["uid"] == "705ab4f5-6393"


def test_an_operation_that_is_no_creation_changes_nothing() -> None:
    sent = make_review(make_pod(), operation="UPDATE")
    assert "patch" not in check(answer(sent, VIEW).body, sent)


def test_a_mistake_of_ours_lets_the_pod_through_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "inject", lambda *_: 1 / 0)
    sent = make_review(make_pod())
    found = answer(sent, VIEW)
    response = check(found.body, sent)
    assert "patch" not in response
    assert "InternalError" in response["warnings"][0]
    assert found.outcome.skip is not None
    assert found.outcome.skip.reason is Reason.INTERNAL_ERROR


def test_nobody_is_told_that_what_did_not_ask_has_no_vllm() -> None:
    redis = make_pod({"image": "redis:7"}, annotations={})
    assert answer(make_review(redis, "open"), VIEW).outcome.kind == "ignored"
    asks = make_pod({"image": "redis:7"})
    assert answer(make_review(asks, "open"), VIEW).outcome.kind == "skipped"


def test_a_namespace_may_ask_for_all_of_its_pods() -> None:
    view = make_view([make_policy("cluster", "trail-system")], namespace_labels={"open": "enabled"})
    assert (read_status(admit(make_pod(annotations={}), view, "open")) or {})["injected"] is True
    assert read_status(admit(make_pod(annotations={}), view, "closed")) is None


def make_certificate(folder: Path, serial: int) -> Certificate:
    """A certificate of its own for localhost, written as a secret's volume has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").write_bytes(private)
    return Certificate(folder / "tls.crt", folder / "tls.key")


@contextlib.asynccontextmanager
async def served(tmp_path: Path, told: list[Outcome]) -> AsyncIterator[tuple[int, CertificateWatch, Webhook]]:
    metrics = Metrics()
    watch = CertificateWatch(make_certificate(tmp_path, 1), metrics)
    webhook = Webhook(lambda: golden_view(native=True), told.append, metrics, Health())
    async with listening(webhook.app(), "127.0.0.1", 0, watch.context) as port:
        yield port, watch, webhook


def serial_of(port: int) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_it_serves_reviews_and_follows_its_certificate(tmp_path: Path) -> None:
    import asyncio

    told: list[Outcome] = []
    async with served(tmp_path, told) as (port, watch, _), aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{port}"
        for sent, kind in (
            (make_review(make_pod(), "llm"), "patch"),
            (b"rubbish", ""),
            (b"x" * (17 * 2**20), ""),
        ):
            async with session.post(f"{url}/inject?timeout=10s", data=sent, ssl=False) as response:
                assert response.status == 200
                assert response.content_type == "application/json"
                assert (kind or "allowed") in check(await response.read(), sent)
        async with session.post(
            f"{url}/inject", data=make_review(make_pod(hostNetwork=True)), ssl=False
        ) as response:
            assert "HostNetwork" in (await response.json())["response"]["warnings"][0]
        dry = make_review(make_pod(hostNetwork=True), dryRun=True)
        async with session.post(f"{url}/inject", data=dry, ssl=False) as response:
            assert response.status == 200
        async with session.get(f"{url}/healthz", ssl=False) as response:
            assert response.status == 200
        assert [o.skip.reason for o in told if o.skip] == [Reason.HOST_NETWORK]
        assert not watch.refresh()
        assert await asyncio.to_thread(serial_of, port) == 1
        make_certificate(tmp_path, 2)
        assert watch.refresh()
        assert await asyncio.to_thread(serial_of, port) == 2
        # Half a change: the certificate of one pair and the key of another.
        (tmp_path / "tls.crt").write_bytes(make_certificate(tmp_path / "other", 3).certificate.read_bytes())
        assert not watch.refresh()
        (tmp_path / "tls.key").unlink()
        assert not watch.refresh()
        assert await asyncio.to_thread(serial_of, port) == 2


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"tls\.crt"):
        CertificateWatch(Certificate(tmp_path / "tls.crt", tmp_path / "tls.key"), Metrics())
    (tmp_path / "tls.crt").write_text("no")
    (tmp_path / "tls.key").write_text("no")
    with pytest.raises(CertificateError, match=r"tls\.crt"):
        CertificateWatch(Certificate(tmp_path / "tls.crt", tmp_path / "tls.key"), Metrics())


async def test_metrics_count_what_became_of_pods(tmp_path: Path) -> None:
    metrics = Metrics()
    webhook = Webhook(lambda: VIEW, lambda _: None, metrics, Health())
    webhook.review(make_review(make_pod()))
    webhook.review(make_review(make_pod(hostNetwork=True)))
    webhook.review(b"")
    async with listening(webhook.plain_app(), "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
            text = await response.text()
        async with session.get(f"http://127.0.0.1:{port}/healthz") as response:
            assert response.status == 200
    assert 'trail_operator_admissions_total{outcome="injected",reason=""} 1.0' in text
    assert 'trail_operator_admissions_total{outcome="skipped",reason="HostNetwork"} 1.0' in text
    assert 'trail_operator_admissions_total{outcome="malformed",reason=""} 1.0' in text


def test_telling_may_fail_without_harm() -> None:
    def fail(_: Outcome) -> None:
        raise RuntimeError

    webhook = Webhook(lambda: VIEW, fail, Metrics(), Health())
    assert webhook.review(make_review(make_pod(hostNetwork=True))).outcome.kind == "skipped"
