"""`helm test`'s check against the operator's own servers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from trail_operator.admission.review import View
from trail_operator.admission.webhook import Webhook, listening
from trail_operator.health import Health
from trail_operator.jobs.certificates import renewed
from trail_operator.jobs.installed import NotInstalledError, check_metrics, check_webhook, main
from trail_operator.metrics import Metrics
from trail_operator.settings import InjectionSettings

Urls = tuple[str, str]


@pytest.fixture
def operators() -> Metrics:
    """Of an operator that hears of changes."""
    metrics = Metrics()
    metrics.watches_up.set(1)
    return metrics


@pytest.fixture
async def urls(tmp_path: Path, operators: Metrics) -> AsyncIterator[Urls]:
    """Webhook and metrics of an operator, with a generated certificate; its authority is in ca.crt."""
    bundle = renewed(None, ["127.0.0.1"], 1, datetime.now(UTC))
    files = {"ca.crt": bundle.authorities, "tls.crt": bundle.certificate, "tls.key": bundle.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    view = View({}, InjectionSettings("s:1", "e:1"))
    webhook = Webhook(lambda: view, lambda _: None, operators, Health())
    async with (
        listening(webhook.app(), "127.0.0.1", 0, context) as secure,
        listening(webhook.plain_app(), "127.0.0.1", 0) as plain,
    ):
        yield f"https://127.0.0.1:{secure}/inject", f"http://127.0.0.1:{plain}/metrics"


async def test_an_operator_that_answers_passes(urls: Urls, tmp_path: Path) -> None:
    webhook, metrics = urls
    words = [f"--webhook={webhook}", f"--metrics={metrics}", f"--authority={tmp_path}/ca.crt"]
    assert await asyncio.to_thread(main, words) == 0


async def test_an_operator_that_hears_nothing_does_not(urls: Urls, operators: Metrics) -> None:
    """It answers as well as another, and nothing that is annotated would ever be switched on."""
    operators.watches_up.set(0)
    with pytest.raises(NotInstalledError, match="hears of no changes"):
        await asyncio.to_thread(check_metrics, urls[1])


async def test_a_certificate_of_somebody_else_does_not(urls: Urls, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    other.write_bytes(renewed(None, ["127.0.0.1"], 1, datetime.now(UTC)).authorities)
    with pytest.raises(NotInstalledError, match="CERTIFICATE_VERIFY_FAILED"):
        await asyncio.to_thread(check_webhook, urls[0], other)


async def test_nobody_there_is_told(urls: Urls, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--metrics={urls[1]}", "--webhook=https://127.0.0.1:1/inject", f"--authority={tmp_path}/ca.crt"]
    assert await asyncio.to_thread(main, words) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


async def test_somebody_else_there_is_told() -> None:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_route("*", "/{any}", hello)
    async with listening(app, "127.0.0.1", 0) as port:
        with pytest.raises(NotInstalledError, match="no metric"):
            await asyncio.to_thread(check_metrics, f"http://127.0.0.1:{port}/metrics")
        with pytest.raises(NotInstalledError, match="no admission review"):
            await asyncio.to_thread(check_webhook, f"http://127.0.0.1:{port}/inject", None)
