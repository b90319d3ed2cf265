"""HTML pages: one layout, parts to put sections together from, and how a document and its page are written.

A page has no script, asks for nothing from anywhere, and follows the reader's light or dark theme.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from trail.report.palette import Style
from trail.wire.files import write_json, write_text

_PARTS = ("section", "soft", "points", "figure", "folded", "table")


def page(
    package: str,
    template: str,
    *,
    headline: str,
    styles: Iterable[Style],
    tiles: Sequence[tuple[object, str]] = (),
    **content: object,
) -> str:
    """The page that `template` of `package` extends `page.html.j2` to.

    `styles` are all that its figures and tables are drawn in; `tiles` are numbers, each with what it is.
    """
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name, "templates") for name in (package, "trail.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = templates.get_template("parts.html.j2").module
    templates.globals |= {name: getattr(parts, name) for name in _PARTS}
    return templates.get_template(template).render(
        headline=headline, styles=list(dict.fromkeys(styles)), tiles=tiles, **content
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
