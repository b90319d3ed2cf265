"""The plan's document to one HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trail.report.page import page
from trail.report.palette import arm_styles
from trail.simulation.plan import figures
from trail.simulation.plan.table import at_load_with_intervals, over_load
from trail.simulation.plan.wording import MISLEADS, findings, headline


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    styles = arm_styles(list(document["arms"]))
    return page(
        "trail.simulation.plan",
        "plan.html.j2",
        headline=headline(document),
        styles=styles.values(),
        d=document,
        file_name=Path(document["workload"]["lengths"]).name,
        findings=findings(document),
        misleads=MISLEADS,
        over_load=over_load(document, styles),
        at_load=at_load_with_intervals(document, styles) if document["c"] else None,
        figures={"load": figures.over_load(document, styles), "c": figures.by_c(document)},
    )
