"""One self-contained HTML page: a title, a few numbers, and sections of sentences, figures and tables.

No script, no request to anywhere, light and dark.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from trail.report.palette import Style
from trail.report.table import Table
from trail.wire.files import write_json, write_text


@dataclass(frozen=True)
class Soft:
    """A paragraph that explains, in the softer colour."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """SVG text of our own drawing, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """Facts that show when the reader opens them."""

    title: str
    facts: Sequence[tuple[str, str]]


Part = str | Soft | Points | Figure | Table | Facts | Folded
"""Of a section. A string is a paragraph, Markup stands as it is."""


@dataclass(frozen=True)
class Section:
    """Parts below a title; `warning`: on a ground that stands out."""

    title: str
    parts: Sequence[Part]
    warning: bool = False


def section(title: str, *parts: Part | None, warning: bool = False) -> Section | None:
    """Of the parts that are there; None where none is."""
    shown = [part for part in parts if part is not None]
    return Section(title, shown, warning) if shown else None


def figure(svg: str | None, caption: str = "") -> Figure | None:
    """None where there was nothing to draw."""
    return Figure(svg, caption) if svg else None


def points(sentences: Sequence[str]) -> Points | None:
    """None where there is nothing to say."""
    return Points(sentences) if sentences else None


def page(
    *,
    title: str,
    headline: str,
    lead: Sequence[str],
    sections: Iterable[Section | None],
    styles: Iterable[Style] = (),
    tiles: Sequence[tuple[str, str]] = (),
    css: str = "",
) -> str:
    """The page. `lead`: what stands below the headline, part by part; `tiles`: numbers, each with what it is;
    `styles`: all that figures and tables are drawn in; `css`: further rules."""
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            headline=headline,
            lead=lead,
            tiles=tiles,
            sections=[section for section in sections if section],
            styles=list(dict.fromkeys(styles)),
            css=Markup(css),  # noqa: S704 - a report's own
        )
    )


def write_results(
    document: Mapping[str, Any],
    json_file: Path,
    html_file: Path,
    render: Callable[[Mapping[str, Any]], str],
) -> None:
    """Write the document and its page, each whole or not at all. Raises OSError."""
    write_json(json_file, document)
    # The page shows what was written, whatever JSON makes of it.
    write_text(html_file, render(json.loads(json_file.read_text(encoding="utf-8"))))


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("trail.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["kind"] = lambda part: type(part).__name__
    return templates
