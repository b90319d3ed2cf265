"""The report opens in a real browser: nothing in the console, nothing fetched, readable in light and dark."""

import re
import shutil
from pathlib import Path

import pytest
from results_maker import ARMS, make_results

from trail.lab.report.palette import arm_styles
from trail.lab.report.render import render_report

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_arms_are_told_apart_on_light_and_dark_cards() -> None:
    styles = arm_styles(ARMS).values()
    for style in styles:
        assert contrast(style.light, "#ffffff") > 2.2
        assert contrast(style.dark, "#1b1f24") > 2.2
    assert len({s.light for s in styles}) == len({s.dark for s in styles}) == len(ARMS)


def test_an_arm_keeps_its_hue_whatever_is_beside_it() -> None:
    for name in ("fcfs", "sjf", "trail-prompt", "oracle-c0"):
        assert arm_styles([name])[name].light == arm_styles([*ARMS, name])[name].light


def test_the_page_refers_to_nothing_outside_itself_and_has_no_script() -> None:
    page = render_report(make_results())
    assert "<script" not in page
    links = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all(ref in ids for ref in re.findall(r'(?:url\(|href=")#([^")]+)', page))


def test_what_requests_and_names_contain_cannot_become_markup() -> None:
    page = render_report(make_results(("fcfs", "sjf"), spoil=True))
    assert "demo &lt;x&gt;" in page
    assert "<b>gone" not in page


@pytest.mark.parametrize("arms", [("fcfs",), ("sjf",), ("trail-c0", "oracle")])
def test_any_set_of_arms_renders(arms: tuple[str, ...]) -> None:
    page = render_report(make_results(arms, repeats=1))
    for arm in arms:
        assert f">{arm}<" in page or f"</span>{arm}</td>" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it_without_complaint_and_fetches_nothing(
    tmp_path: Path, scheme: str, width: int
) -> None:
    from playwright.sync_api import sync_playwright

    file = tmp_path / "report.html"
    file.write_text(render_report(make_results(spoil=True)))
    console: list[str] = []
    fetched: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
            page.on("console", lambda message: console.append(message.text))
            page.on("pageerror", lambda error: console.append(str(error)))
            page.on("request", lambda request: fetched.append(request.url))
            page.goto(file.as_uri())
            page.wait_for_load_state("networkidle")
            wide = page.evaluate(
                "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            )
            figures = page.locator("figure svg").count()
            ink, paper = (
                page.evaluate(f"getComputedStyle(document.body).{what}")
                for what in ("color", "backgroundColor")
            )
        finally:
            browser.close()
    assert console == []
    assert [u for u in fetched if not u.startswith("data:")] == [file.as_uri()]
    assert figures == 5
    assert not wide, "the page itself never scrolls sideways"
    assert (
        contrast(*("#" + "".join(f"{int(v):02x}" for v in re.findall(r"\d+", c)[:3]) for c in (ink, paper)))
        > 7
    )
