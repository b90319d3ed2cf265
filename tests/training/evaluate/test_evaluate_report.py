"""The evaluation's page opens in a real browser, and its sentences follow from the numbers."""

import copy
import re
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_maker import make_document
from page_kit import assert_self_contained, contrast
from rich.console import Console

from trail.predict.bins import equal_bins
from trail.predict.training.metrics import Forecast, JudgedRows
from trail.report.palette import predictor_styles, series_styles
from trail.training.evaluate import judging
from trail.training.evaluate.judging import judge_arm, order_agreement
from trail.training.evaluate.report import render
from trail.training.evaluate.table import print_arms
from trail.training.evaluate.wording import findings, headline, where_paper_is_better


@cache
def made(bare: bool = False, swap: bool = False) -> dict[str, Any]:
    return make_document(bare=bare, swap=swap)


def document(*, bare: bool = False, swap: bool = False) -> dict[str, Any]:
    """A copy of one's own to change."""
    return copy.deepcopy(made(bare, swap))


# Sentences


def test_the_headline_says_by_how_much_the_default_predictor_errs_less() -> None:
    d = document()
    share = 100 * (1 - d["arms"]["default"]["mae"] / d["arms"]["trail-paper-refined"]["mae"])
    assert headline(d).endswith(f"tokens on average, {share:.1f} % less than the paper's recipe")


def test_the_headline_says_so_where_the_default_predictor_errs_more() -> None:
    d = document(swap=True)
    share = 100 * (d["arms"]["default"]["mae"] / d["arms"]["trail-paper-refined"]["mae"] - 1)
    assert headline(d).endswith(f"{share:.1f} % more than the paper's recipe")


def test_a_difference_whose_interval_holds_zero_is_called_none() -> None:
    d = document()
    d["differences"]["default against trail-paper-refined"] |= {"low": -1.0, "high": 0.5}
    assert "cannot be told apart" in headline(d)
    assert any("no proof of a difference" in sentence for sentence in findings(d))


def test_without_the_default_predictor_the_best_arm_is_named() -> None:
    d = document()
    del d["arms"]["default"]
    assert headline(d).startswith("The paper's recipe errs least")
    render(d | {"differences": {}})


def test_an_arm_that_errs_less_than_the_default_predictor_is_named() -> None:
    assert not any("errs least of all" in sentence for sentence in findings(document()))
    d = document()
    d["arms"]["position"]["mae"] = 0.5
    assert any(s.startswith("Position errs least of all: by 0.50 tokens") for s in findings(d))


def test_every_place_where_the_papers_recipe_is_better_is_said() -> None:
    d = document()
    ours, papers = d["arms"]["default"], d["arms"]["trail-paper-refined"]
    for group in (*papers["by_decile"], *papers["by_length"], *papers["by_kind"].values()):
        group["mae"] = 1e6
    nowhere = "in none of the tenths of progress, bands of whole lengths or kinds of prompt."
    assert where_paper_is_better(d).endswith(nowhere)
    papers["by_decile"][3]["mae"] = ours["by_decile"][3]["mae"] - 1
    papers["by_decile"][4]["mae"] = None
    papers["by_length"][0]["mae"] = ours["by_length"][0]["mae"] - 1
    papers["by_kind"]["code"]["mae"] = ours["by_kind"]["code"]["mae"] - 1
    sentence = where_paper_is_better(d)
    assert "in 1 of 9 tenths of progress: 30-40 % (" in sentence
    assert f"in 1 of 5 bands of whole lengths: {ours['by_length'][0]['from_tokens']}-" in sentence
    assert "in 1 of 3 kinds of prompt: code (" in sentence
    assert sentence.count("against") == 3
    everywhere = where_paper_is_better(document(swap=True))
    assert everywhere.endswith(
        "in all 10 tenths of progress; in all 5 bands of whole lengths; in all 3 kinds of prompt."
    )


def test_measures_in_which_the_papers_recipe_is_better_are_said() -> None:
    d = document()
    d["arms"]["trail-paper-refined"] |= {"rmse": 0.5, "kendall_tau": 0.999, "ece": 0.5}
    last = findings(d)[-1]
    assert "better in RMSE (0.50 against" in last
    assert "Kendall's tau (0.999 against" in last
    assert "ECE" not in last


def test_an_error_below_the_floors_estimate_is_called_so() -> None:
    d = document()
    d["floor"] |= {"mae": 2 * d["arms"]["default"]["mae"]}
    assert "lies 50.0 % below the floor" in findings(d)[0]


# Terminal


@pytest.mark.parametrize("bare", [False, True])
def test_the_terminal_shows_every_arm_and_says_the_same_in_80_columns(bare: bool) -> None:
    d = document(bare=bare)
    console = Console(file=StringIO(), width=80)
    print_arms(console, d)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for name, arm in d["arms"].items():
        lines = [line.split() for line in printed.splitlines() if line.split()[:1] == [name]]
        assert len(lines) == 2
        assert lines[0][1] == f"{arm['mae']:.1f}"
        assert f"{arm['bias']:+.2f}" in lines[1]
    flat = " ".join(printed.split())
    assert headline(d) in flat
    assert all(sentence in flat for sentence in findings(d))
    assert ("ECE" in flat) is not bare
    assert "…" not in flat


# Page


@pytest.mark.parametrize("bare", [False, True])
def test_the_page_refers_to_nothing_outside_itself_and_has_no_script(bare: bool) -> None:
    assert_self_contained(render(document(bare=bare)))


def test_names_cannot_become_markup() -> None:
    page = render(document())
    assert "demo &lt;x&gt;" in page
    assert "list &lt;x&gt;" in page
    assert "<x>" not in page


def test_figures_are_drawn_in_the_pages_colours_only() -> None:
    page = render(document())
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not re.findall(r"(?<=: )#[0-9a-f]{6}\b", drawn)
    used = set(re.findall(r"var\((--[\w-]+)\)", drawn))
    assert len(used) > len(document()["arms"])
    for theme in page[page.index("<style>") : page.index("</style>")].split("prefers-color-scheme: dark"):
        assert used <= set(re.findall(r"(--[\w-]+):", theme))


def test_arms_and_lines_are_told_apart_on_light_and_dark_cards() -> None:
    arms, lines = predictor_styles(list(document()["arms"])), series_styles(["a", "b", "c", "d"])
    styles = [*arms.values(), *lines.values()]
    for side, card in (("light", "#ffffff"), ("dark", "#1b1f24")):
        colours = [getattr(style, side) for style in styles]
        assert len(set(colours)) == len(colours)
        assert min(contrast(colour, card) for colour in colours) > 2.2


@pytest.mark.parametrize(("bare", "figures"), [(False, 7), (True, 3)])
def test_a_browser_shows_it_without_complaint_and_fetches_nothing(
    tmp_path: Path, quiet_page: Callable[..., Any], bare: bool, figures: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(document(bare=bare)))
    with quiet_page(file) as page:
        drawn = page.locator("figure svg").count()
        hidden = page.locator("dd", has_text="trail evaluate build/predictor")
        assert not hidden.is_visible()
        page.get_by_text("How this was measured").click()
        assert hidden.is_visible()
        overlaps = page.evaluate(OVERLAPPING_TEXTS)
        wide = {}
        for width in (1280, 420):
            page.set_viewport_size({"width": width, "height": 900})
            root = "document.documentElement"
            wide[width] = page.evaluate(f"{root}.scrollWidth > {root}.clientWidth")
    assert drawn == figures
    assert overlaps == [], "texts of a figure lie on each other or outside of it"
    assert not any(wide.values()), "the page itself never scrolls sideways"


OVERLAPPING_TEXTS = """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const outside = texts.filter(([, r]) =>
    r.left < frame.left - 1 || r.right > frame.right + 1 ||
    r.top < frame.top - 1 || r.bottom > frame.bottom + 1);
  const over = texts.flatMap(([a, r], i) => texts.slice(i + 1).filter(([, s]) =>
    Math.min(r.right, s.right) - Math.max(r.left, s.left) > 1 &&
    Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 2).map(([b]) => a + ' / ' + b));
  return [...outside.map(([a]) => 'outside: ' + a), ...over];
})"""


# Order


def ordered_rows(remaining: list[int]) -> JudgedRows:
    n = len(remaining)
    return JudgedRows(np.arange(n), np.arange(n), np.ones(n, dtype=np.int64), np.array(remaining))


def said(tokens: list[float]) -> Forecast:
    return Forecast(equal_bins(), None, np.array(tokens))


def test_the_order_is_agreed_with_or_opposed_or_unknown() -> None:
    rows = ordered_rows([5, 9, 20, 70])
    assert judge_arm(rows, said([1, 2, 3, 4]), resamples=2)["kendall_tau"] == pytest.approx(1)
    assert judge_arm(rows, said([4, 3, 2, 1]), resamples=2)["kendall_tau"] == pytest.approx(-1)
    assert judge_arm(rows, said([4, 4, 4, 4]), resamples=2)["kendall_tau"] is None


def test_equal_values_count_as_in_tau_b() -> None:
    rng = np.random.default_rng(0)
    true, tokens = rng.integers(1, 8, 60), rng.integers(1, 8, 60).astype(float)
    pairs = [(i, j) for i in range(60) for j in range(i)]
    a = np.array([np.sign(true[i] - true[j]) for i, j in pairs])
    b = np.array([np.sign(tokens[i] - tokens[j]) for i, j in pairs])
    expected = (a * b).sum() / np.sqrt((a != 0).sum() * (b != 0).sum())
    assert order_agreement(ordered_rows(true.tolist()), said(tokens.tolist())) == pytest.approx(expected)


def test_many_rows_are_drawn_from_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = ordered_rows(rng.integers(1, 50, 400).tolist())
    forecast = said(rng.normal(size=400).tolist())
    monkeypatch.setattr(judging, "TAU_ROWS", 50)
    drawn = [order_agreement(rows, forecast, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
