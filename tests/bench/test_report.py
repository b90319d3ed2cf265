"""The report opens in a real browser: nothing in the console, nothing fetched, readable in light and dark."""

import colorsys
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_kit import assert_self_contained, contrast
from results_maker import ARMS, make_results

from trail.bench.report.page import render
from trail.report.palette import arm_styles


def test_arms_are_told_apart_on_light_and_dark_cards() -> None:
    styles = arm_styles(ARMS).values()
    for style in styles:
        assert contrast(style.light, "#ffffff") > 2.2
        assert contrast(style.dark, "#1b1f24") > 2.2
    assert len({s.light for s in styles}) == len({s.dark for s in styles}) == len(ARMS)


def test_an_arm_keeps_its_hue_whatever_is_beside_it() -> None:
    def hue(colour: str) -> float:
        return colorsys.rgb_to_hsv(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0]

    for name in ("fcfs", "sjf", "trail-prompt", "trail-c0", "adaptive-k2", "oracle-c0", "mlfq"):
        alone, beside = arm_styles([name])[name], arm_styles([*ARMS, "adaptive", name])[name]
        for one, other in ((alone.light, beside.light), (alone.dark, beside.dark)):
            assert abs((hue(one) - hue(other) + 0.5) % 1 - 0.5) < 0.03, "hues lie on a circle"


def test_arms_of_one_policy_are_told_apart_by_their_parameters() -> None:
    for family in ("trail-c", "adaptive-k"):
        styles = arm_styles([f"{family}{value}" for value in (0, 0.5, 2)]).values()
        assert len({s.light for s in styles}) == len({s.dark for s in styles}) == 3
        for style in styles:
            assert contrast(style.light, "#ffffff") > 2.2
            assert contrast(style.dark, "#1b1f24") > 2.2


def test_the_page_refers_to_nothing_outside_itself_and_has_no_script() -> None:
    assert_self_contained(render(make_results()))


def test_what_requests_and_names_contain_cannot_become_markup() -> None:
    page = render(make_results(("fcfs", "sjf"), spoil=True))
    assert "demo &lt;x&gt;" in page
    assert "<b>gone" not in page


@pytest.mark.parametrize("arms", [("fcfs",), ("sjf",), ("trail-c0", "oracle")])
def test_any_set_of_arms_renders(arms: tuple[str, ...]) -> None:
    page = render(make_results(arms, repeats=1))
    for arm in arms:
        assert f">{arm}<" in page or f"</span>{arm}</td>" in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it_without_complaint_and_fetches_nothing(
    tmp_path: Path, quiet_page: Callable[..., Any], scheme: str, width: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(make_results(spoil=True)))
    with quiet_page(file, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        figures = page.locator("figure svg").count()
        ink, paper = (
            page.evaluate(f"getComputedStyle(document.body).{what}") for what in ("color", "backgroundColor")
        )
    assert figures == 5
    assert not wide, "the page itself never scrolls sideways"
    assert (
        contrast(*("#" + "".join(f"{int(v):02x}" for v in re.findall(r"\d+", c)[:3]) for c in (ink, paper)))
        > 7
    )
