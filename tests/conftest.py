"""Property tests here judge values, never how long a busy machine took. A browser for reports."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("no-clock", deadline=None)
settings.load_profile("no-clock")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/operator/test_operator_golden.py --write-golden`; read the diff."""
    parser.addoption("--write-golden", action="store_true", help="write the expected pods anew")


@pytest.fixture
def quiet_page() -> Callable[..., Any]:
    """Opens a file in a real browser; at the end nothing may have been complained about or fetched."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")

    @contextmanager
    def opened(file: Path, **options: Any) -> Iterator[Any]:
        from playwright.sync_api import sync_playwright

        console: list[str] = []
        fetched: list[str] = []
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            )
            try:
                page = browser.new_page(**options)
                page.on("console", lambda message: console.append(message.text))
                page.on("pageerror", lambda error: console.append(str(error)))
                page.on("request", lambda request: fetched.append(request.url))
                page.goto(file.as_uri())
                page.wait_for_load_state("networkidle")
                yield page
            finally:
                browser.close()
        assert console == []
        assert [u for u in fetched if not u.startswith("data:")] == [file.as_uri()]

    return opened
