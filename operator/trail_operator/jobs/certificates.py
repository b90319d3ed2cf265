"""The webhook's certificate where no cert-manager issues it: `python -m trail_operator.jobs.certificates`.

Runs beside the operator, in its pod. An authority of our own signs a short-lived certificate; both live in
one Secret that all replicas share. What the API server trusts is changed before what is served: the
authority's bundle keeps the former authority, so that replicas that still serve the former certificate stay
trusted. The operator itself only sees files that change, as it would with cert-manager.
"""

import argparse
import asyncio
import base64
import contextlib
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trail_operator.cluster_api.kube import Kube, KubeError, Object, path

AUTHORITY_DAYS = 3650
_BACKDATED = timedelta(minutes=5)
"""Clocks of API server and replicas may differ."""
_EVERY_S, _AGAIN_S = 600.0, 10.0

log = logging.getLogger("trail.operator.certificates")


@dataclass(frozen=True)
class Bundle:
    """What the Secret holds, all of it PEM. `authorities` begins with the one that signs."""

    authorities: bytes
    authority_key: bytes
    certificate: bytes
    key: bytes

    FIELDS = ("ca.crt", "ca.key", "tls.crt", "tls.key")

    @classmethod
    def of(cls, data: Mapping[str, str]) -> "Bundle | None":
        """From a Secret's data; None where something is missing or unreadable."""
        try:
            found = cls(*(base64.b64decode(data[name], validate=True) for name in cls.FIELDS))
            x509.load_pem_x509_certificates(found.authorities)
            x509.load_pem_x509_certificate(found.certificate)
            _load_key(found.authority_key)
            _load_key(found.key)
        except (KeyError, ValueError, TypeError):
            return None
        return found

    def data(self) -> dict[str, str]:
        """As a Secret's data."""
        parts = (self.authorities, self.authority_key, self.certificate, self.key)
        return {name: base64.b64encode(part).decode() for name, part in zip(self.FIELDS, parts, strict=True)}


def renewed(bundle: Bundle | None, names: Sequence[str], days: int, now: datetime) -> Bundle:
    """`bundle` itself while more than a third of its life is left and it is for `names`; else its successor.

    The authority lives ten years; a new one is put in front of the former. `now` has a time zone.
    """
    if bundle is None:
        authority, key = _authority(now)
        return _issue([authority], key, names, days, now)
    authorities = x509.load_pem_x509_certificates(bundle.authorities)
    key = _load_key(bundle.authority_key)
    if _ageing(authorities[0], now):
        authority, key = _authority(now)
        return _issue([authority, authorities[0]], key, names, days, now)
    certificate = x509.load_pem_x509_certificate(bundle.certificate)
    if _ageing(certificate, now) or _names(certificate) != set(names):
        return _issue(authorities, key, names, days, now)
    return bundle


def _ageing(certificate: x509.Certificate, now: datetime) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life / 3


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("no elliptic curve key")
    return key


def _authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number tells two authorities of one name apart.
    serial = x509.random_serial_number()
    name = _name(f"trail-operator {serial:x}"[:64])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    builder = _builder(name, name, key, AUTHORITY_DAYS, now).serial_number(serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, SHA256()), key


def _issue(
    authorities: Sequence[x509.Certificate],
    authority_key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    days: int,
    now: datetime,
) -> Bundle:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name("trail-operator"), authorities[0].subject, key, days, now)
    builder = builder.serial_number(x509.random_serial_number())
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    for extension in (alternatives, issuer, purpose):
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(authority_key, SHA256())
    return Bundle(
        b"".join(authority.public_bytes(Encoding.PEM) for authority in authorities),
        _pem(authority_key),
        certificate.public_bytes(Encoding.PEM),
        _pem(key),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, now: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).not_valid_before(now - _BACKDATED)
    return builder.not_valid_after(now + timedelta(days=days))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class CertificateConfig:
    """What is kept where. Raises ValueError for a validity that is none."""

    namespace: str
    secret: str
    webhook_configuration: str
    names: tuple[str, ...]
    """Of the webhook as the API server calls it."""
    directory: Path
    days: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.days <= 3650:
            raise ValueError(f"--days is {self.days}; give 1 to 3650")


class Certificates:
    """Keeps Secret, webhook configuration and files in step."""

    def __init__(self, kube: Kube, config: CertificateConfig) -> None:
        self._kube = kube
        self._config = config

    async def refresh(self, now: datetime) -> Bundle:
        """One look; renews what is due. Raises as `Kube` does, and OSError for the files."""
        bundle = await self._shared(now)
        await self._have_it_trusted(bundle)
        self._write(bundle)
        return bundle

    async def _shared(self, now: datetime) -> Bundle:
        config = self._config
        where = path("v1", "secrets", config.namespace, config.secret)
        while True:
            secret = await self._kube.get(where)
            present = Bundle.of(secret.get("data") or {})
            wanted = renewed(present, config.names, config.days, now)
            if wanted is present:
                return wanted
            try:
                # With the version that was read: of two replicas one is first, and the other takes its word.
                await self._kube.replace(where, {**secret, "data": wanted.data()})
            except KubeError as error:
                if error.status != 409:
                    raise
            else:
                log.info("a certificate for %s was issued, for %d days", ", ".join(config.names), config.days)
                return wanted

    async def _have_it_trusted(self, bundle: Bundle) -> None:
        where = path(
            "admissionregistration.k8s.io/v1",
            "mutatingwebhookconfigurations",
            None,
            self._config.webhook_configuration,
        )
        found: Object = await self._kube.get(where)
        authorities = base64.b64encode(bundle.authorities).decode()
        webhooks = found.get("webhooks") or []
        if all(hook["clientConfig"].get("caBundle") == authorities for hook in webhooks):
            return
        changed = [
            {**hook, "clientConfig": {**hook["clientConfig"], "caBundle": authorities}} for hook in webhooks
        ]
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await self._kube.patch(where, {"metadata": version, "webhooks": changed})

    def _write(self, bundle: Bundle) -> None:
        """One rename for all: key and certificate are never of two kinds."""
        directory = self._config.directory
        contents = {"tls.crt": bundle.certificate, "tls.key": bundle.key}
        present = directory / "..data"
        with contextlib.suppress(OSError):
            if all((present / name).read_bytes() == content for name, content in contents.items()):
                return
        # As the kubelet does it for a Secret's volume.
        fresh = directory / f"..{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        fresh.mkdir(mode=0o700, parents=True)
        for name, content in contents.items():
            file = os.open(fresh / name, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(content)
        former = present.resolve() if present.is_symlink() else None
        _link(fresh.name, present)
        for name in contents:
            if not (directory / name).is_symlink():
                _link(f"..data/{name}", directory / name)
        if former is not None:
            for file_name in contents:
                (former / file_name).unlink(missing_ok=True)
            former.rmdir()


def _link(target: str, place: Path) -> None:
    new = place.with_name(f"{place.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(place)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. 0 after that, 2 for bad input, 1 where `--once` failed."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    args = _parser().parse_args(argv)
    try:
        config = CertificateConfig(
            args.namespace,
            args.secret,
            args.webhook_configuration,
            tuple(args.name),
            args.directory,
            args.days,
        )
        asyncio.run(_run(config, once=args.once))
    except ValueError as error:
        log.error("%s", error)  # noqa: TRY400 - bad input is told in one line
        return 2
    except (ConnectionError, KubeError, OSError, TimeoutError) as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - the message says what to do
        return 1
    return 0


async def _run(config: CertificateConfig, *, once: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await Kube.connect() as kube:
        certificates = Certificates(kube, config)
        if once:
            await certificates.refresh(datetime.now(UTC))
            return
        while not stop.is_set():
            pause_s = _EVERY_S
            try:
                await certificates.refresh(datetime.now(UTC))
            except (KubeError, OSError, TimeoutError) as error:
                pause_s = _AGAIN_S
                log.warning("the certificate stays as it is: %s; again in %.0f s", error, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trail-operator-certificates",
        description="Issues and renews the webhook's certificate, and has the API server trust it.",
    )
    add = parser.add_argument
    add("--namespace", required=True, help="namespace of the operator")
    add("--secret", required=True, metavar="NAME", help="Secret that the replicas share; it must exist")
    add("--webhook-configuration", required=True, metavar="NAME", help="MutatingWebhookConfiguration")
    add("--name", action="append", required=True, metavar="HOST",
        help="name or address of the webhook; may be given again")  # fmt: skip
    add("--directory", type=Path, required=True, metavar="DIR", help="where tls.crt and tls.key appear")
    add("--days", type=int, default=90, help="validity (%(default)s)")
    add("--once", action="store_true", help="one look, and an exit code")
    return parser


if __name__ == "__main__":
    sys.exit(main())
