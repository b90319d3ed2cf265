"""Generated certificates: what is renewed when, and what the API server trusts meanwhile."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cluster_kit import HOOKS, SECRETS
from cryptography import x509
from fake_api import FakeApi
from hypothesis import given, settings
from hypothesis import strategies as st

from trail_operator.cluster_api.kube import Kube
from trail_operator.jobs.certificates import (
    AUTHORITY_DAYS,
    Bundle,
    CertificateConfig,
    Certificates,
    renewed,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("trail-operator.trail-system.svc", "127.0.0.1")


def trusted(certificate: bytes, authorities: bytes, name: str, now: datetime) -> bool:
    """Whether somebody who trusts `authorities` takes the certificate for `name`."""
    from cryptography.x509 import DNSName, verification

    store = verification.Store(x509.load_pem_x509_certificates(authorities))
    verifier = verification.PolicyBuilder().store(store).time(now).build_server_verifier(DNSName(name))
    try:
        verifier.verify(x509.load_pem_x509_certificate(certificate), [])
    except verification.VerificationError:
        return False
    return True


def test_a_first_certificate_is_for_its_names_and_trusted() -> None:
    bundle = renewed(None, NAMES, 90, NOW)
    assert trusted(bundle.certificate, bundle.authorities, NAMES[0], NOW)
    assert not trusted(bundle.certificate, bundle.authorities, "other.svc", NOW)
    assert not trusted(bundle.certificate, renewed(None, NAMES, 90, NOW).authorities, NAMES[0], NOW)


def test_it_stays_while_more_than_a_third_is_left() -> None:
    bundle = renewed(None, NAMES, 90, NOW)
    assert renewed(bundle, NAMES, 90, NOW + timedelta(days=59)) is bundle
    later = renewed(bundle, NAMES, 90, NOW + timedelta(days=61))
    assert later.certificate != bundle.certificate
    assert later.authorities == bundle.authorities


def test_other_names_need_another_certificate() -> None:
    bundle = renewed(None, NAMES, 90, NOW)
    assert renewed(bundle, ("other.svc",), 90, NOW).certificate != bundle.certificate


@settings(max_examples=10, deadline=None)
@given(days=st.lists(st.integers(1, 25), min_size=1, max_size=250))
def test_whoever_trusts_the_present_or_former_bundle_is_served(days: list[int]) -> None:
    """Over years, authorities' ends included: a replica that is one look behind is still trusted."""
    now, former = NOW, renewed(None, NAMES, 90, NOW)
    jump = timedelta(days=AUTHORITY_DAYS * 2 // 3 - 30)
    for index, step in enumerate(days):
        now += timedelta(days=step) + (jump if index == len(days) // 2 else timedelta())
        if now + timedelta(days=1) > x509.load_pem_x509_certificate(former.certificate).not_valid_after_utc:
            former = renewed(former, NAMES, 90, now)
        present = renewed(former, NAMES, 90, now)
        assert trusted(present.certificate, present.authorities, NAMES[0], now)
        assert trusted(former.certificate, present.authorities, NAMES[0], now)
        former = present


def test_an_ageing_authority_is_followed_by_another_and_kept() -> None:
    bundle = renewed(None, NAMES, 90, NOW)
    later = NOW + timedelta(days=AUTHORITY_DAYS * 2 // 3 + 1)
    after = renewed(bundle, NAMES, 90, later)
    authorities = x509.load_pem_x509_certificates(after.authorities)
    assert len(authorities) == 2
    assert authorities[1] == x509.load_pem_x509_certificates(bundle.authorities)[0]
    assert trusted(after.certificate, after.authorities, NAMES[0], later)


@pytest.mark.parametrize(
    "data",
    [{}, {"ca.crt": "!"}, {name: base64.b64encode(b"rubbish").decode() for name in Bundle.FIELDS}],
)
def test_a_secret_with_rubbish_counts_as_empty(data: dict[str, str]) -> None:
    assert Bundle.of(data) is None


def test_a_secret_is_read_as_it_was_written() -> None:
    bundle = renewed(None, NAMES, 90, NOW)
    assert Bundle.of(bundle.data()) == bundle


@pytest.mark.parametrize("days", [0, 4000])
def test_a_validity_that_is_none_is_refused(days: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--days"):
        CertificateConfig("n", "s", "w", NAMES, tmp_path, days)


def make(kube: Kube, directory: Path) -> Certificates:
    return Certificates(kube, CertificateConfig("trail-system", "certificate", "trail", NAMES, directory))


async def connect(api: FakeApi) -> Kube:
    api.put(f"{SECRETS}/certificate", {"kind": "Secret", "metadata": {"name": "certificate"}})
    return await Kube.connect()


async def test_replicas_share_one_certificate(api: FakeApi, tmp_path: Path) -> None:
    async with await connect(api) as kube:
        first = await make(kube, tmp_path / "a").refresh(NOW)
        second = await make(kube, tmp_path / "b").refresh(NOW)
    assert first == second
    (hook,) = api.objects[f"{HOOKS}/trail"]["webhooks"]
    assert base64.b64decode(hook["clientConfig"]["caBundle"]) == first.authorities
    assert hook["clientConfig"]["service"]["name"] == "trail-operator"
    for replica in ("a", "b"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / replica / "tls.crt", tmp_path / replica / "tls.key")


async def test_nothing_is_written_while_nothing_is_due(api: FakeApi, tmp_path: Path) -> None:
    async with await connect(api) as kube:
        certificates = make(kube, tmp_path)
        await certificates.refresh(NOW)
        api.calls.clear()
        await certificates.refresh(NOW + timedelta(days=1))
    assert {method for method, _ in api.calls} == {"GET"}


async def test_an_authority_that_somebody_took_out_comes_back(api: FakeApi, tmp_path: Path) -> None:
    async with await connect(api) as kube:
        certificates = make(kube, tmp_path)
        bundle = await certificates.refresh(NOW)
        api.objects[f"{HOOKS}/trail"]["webhooks"][0]["clientConfig"].pop("caBundle")
        await certificates.refresh(NOW)
    found = api.objects[f"{HOOKS}/trail"]["webhooks"][0]["clientConfig"]["caBundle"]
    assert base64.b64decode(found) == bundle.authorities


async def test_renewed_files_are_exchanged_whole(api: FakeApi, tmp_path: Path) -> None:
    async with await connect(api) as kube:
        certificates = make(kube, tmp_path)
        await certificates.refresh(NOW)
        before = (tmp_path / "tls.crt").read_bytes()
        await certificates.refresh(NOW + timedelta(days=70))
    assert (tmp_path / "tls.crt").read_bytes() != before
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert len([p for p in tmp_path.iterdir() if p.is_dir() and not p.is_symlink()]) == 1


async def test_of_two_that_issue_at_once_one_gives_way(api: FakeApi, tmp_path: Path) -> None:
    other = renewed(None, NAMES, 90, NOW)
    async with await connect(api) as kube:
        real = kube.get

        async def late(where: str) -> dict[str, object]:
            found = await real(where)
            if where.endswith("/certificate") and "data" not in found:
                # Somebody else writes between our look and our word.
                api.put(f"{SECRETS}/certificate", {**found, "data": other.data()})
            return found

        kube.get = late  # type: ignore[method-assign]
        assert await make(kube, tmp_path).refresh(NOW) == other
