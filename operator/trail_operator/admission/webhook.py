"""The admission server: HTTPS for the API server; health and metrics in the clear, on a port of their own."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from trail_operator.admission.review import Answer, Outcome, View, answer
from trail_operator.health import Health
from trail_operator.metrics import Metrics

_LARGEST_REVIEW = 16 * 2**20
_RELOAD_S = 5.0

log = logging.getLogger("trail.operator.webhook")


class CertificateError(Exception):
    """The webhook's certificate cannot be used; the message names the files."""


@dataclass(frozen=True)
class Certificate:
    """Files in PEM, as cert-manager and `kubernetes.io/tls` secrets have them."""

    certificate: Path
    key: Path

    def fingerprint(self) -> tuple[bytes, bytes]:
        """The files' contents; a secret's volume exchanges a link. Raises CertificateError."""
        try:
            return self.certificate.read_bytes(), self.key.read_bytes()
        except OSError as error:
            raise CertificateError(f"cannot read {error.filename}: {error.strerror}") from error

    def load(self, context: ssl.SSLContext) -> None:
        """Have `context` present it from the next connection on. Raises CertificateError."""
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(
                f"{self.certificate} and {self.key} are no certificate with its key: {error}"
            ) from error


class CertificateWatch:
    """Loads a certificate, and again when its files change. What cannot be loaded is left out."""

    def __init__(self, certificate: Certificate, metrics: Metrics) -> None:
        """Raises CertificateError."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._certificate = certificate
        self._metrics = metrics
        self._seen = certificate.fingerprint()
        certificate.load(self.context)

    def refresh(self) -> bool:
        """Looks at the files; whether another certificate is in use now."""
        try:
            found = self._certificate.fingerprint()
            if found == self._seen:
                return False
            self._seen = found
            # A trial first: a key that does not fit would spoil the context that is in use.
            self._certificate.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._certificate.load(self.context)
        except CertificateError as error:
            self._metrics.certificate_failures.inc()
            log.warning("the changed certificate is not used, the former one is: %s", error)
            return False
        log.info("the certificate was exchanged")
        return True

    async def run(self) -> None:
        """Refreshes for ever."""
        while True:
            await asyncio.sleep(_RELOAD_S)
            self.refresh()


class Webhook:
    """Answers reviews from the present `view`, and hands outcomes to `tell`, which must not block."""

    def __init__(
        self, view: Callable[[], View], tell: Callable[[Outcome], None], metrics: Metrics, health: Health
    ) -> None:
        self._view = view
        self._tell = tell
        self._metrics = metrics
        self._health = health

    def app(self) -> web.Application:
        """What is served to the API server."""
        app = web.Application(client_max_size=_LARGEST_REVIEW)
        app.router.add_post("/inject", self._inject)
        self._add_probes(app)
        return app

    def plain_app(self) -> web.Application:
        """What is served to kubelet and Prometheus."""
        app = web.Application()
        self._add_probes(app)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    def review(self, body: bytes) -> Answer:
        """Answers and keeps the books. Never raises."""
        began_s = time.perf_counter()
        found = answer(body, self._view())
        outcome = found.outcome
        reason = str(outcome.skip.reason) if outcome.skip is not None else ""
        self._metrics.admissions.labels(outcome=outcome.kind, reason=reason).inc()
        self._metrics.admission_seconds.observe(time.perf_counter() - began_s)
        if outcome.kind == "skipped" and not outcome.dry_run:
            with contextlib.suppress(Exception):
                self._tell(outcome)
        return found

    async def _inject(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            body = b""
        return web.Response(body=self.review(body).body, content_type="application/json")

    def _add_probes(self, app: web.Application) -> None:
        for where, look in (("/healthz", self._health.alive), ("/readyz", self._health.ready)):
            app.router.add_get(where, _probe(look))

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        # The library's type names the character set, which aiohttp wants apart.
        return web.Response(
            body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


@contextlib.asynccontextmanager
async def listening(
    app: web.Application, host: str | None, port: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serves `app` while the block runs; gives the port (0 asks the system for one). Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _probe(look: Callable[[], tuple[bool, str]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer_probe(_request: web.Request) -> web.Response:
        well, said = look()
        return web.Response(status=200 if well else 503, text=said)

    return answer_probe
