"""The plan's document to one HTML page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from trail.lab.bench.results import write_json, write_text
from trail.lab.bench.table import seconds_text
from trail.lab.plan import figures
from trail.lab.plan.palette import policy_styles
from trail.lab.plan.wording import MISLEADS, findings, headline, judged_curve, measure_name


def write_results(document: Mapping[str, Any], json_file: Path, html_file: Path) -> None:
    """Write the document and its page, each whole or not at all. Raises OSError."""
    write_json(json_file, document)
    # The page shows what was written, whatever JSON makes of it.
    write_text(html_file, render(json.loads(json_file.read_text(encoding="utf-8"))))


def render(document: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    styles = policy_styles(list(document["arms"]))
    drawn = {"load": figures.over_load(document, styles), "c": figures.by_c(document)}
    environment = jinja2.Environment(
        # The stylesheet is the benchmark report's.
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(f"trail.lab.{part}", "templates") for part in ("plan", "report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds_text
    return environment.get_template("plan.html.j2").render(
        d=document,
        file_name=Path(document["workload"]["lengths"]).name,
        headline=headline(document),
        findings=findings(document),
        measure=measure_name(document),
        curves={name: judged_curve(arm) for name, arm in document["arms"].items()},
        misleads=MISLEADS,
        styles=styles,
        all_styles=list(styles.values()),
        figures={name: Markup(text) if text else None for name, text in drawn.items()},  # noqa: S704 - our own drawing
    )
