"""What every HTML page of a document has in common: its templates, and how both are written."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from trail.wire.files import write_json, write_text


def environment(package: str) -> jinja2.Environment:
    """Templates of a package, with the benchmark report's stylesheet."""
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name, "templates") for name in (package, "trail.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
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
