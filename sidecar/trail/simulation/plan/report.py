"""The plan's document to one HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from trail.report.page import environment
from trail.report.table import seconds_text
from trail.simulation.plan import figures
from trail.simulation.plan.palette import policy_styles
from trail.simulation.plan.wording import MISLEADS, findings, headline, judged_curve, measure_name


def render(document: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    styles = policy_styles(list(document["arms"]))
    drawn = {"load": figures.over_load(document, styles), "c": figures.by_c(document)}
    templates = environment("trail.simulation.plan")
    templates.filters["seconds"] = seconds_text
    return templates.get_template("plan.html.j2").render(
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
