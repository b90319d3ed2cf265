"""results.json to one HTML page."""

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from trail.report import figures
from trail.report.palette import arm_styles
from trail.report.stats import STATISTICS
from trail.report.table import count_text, error_text, seconds_text, speedup_text


def render_report(results: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    arms = results["arms"]
    styles = arm_styles(list(arms))
    drawn = {
        "speedups": figures.speedups(arms, styles),
        "distributions": figures.distributions(arms, styles),
        "over_time": figures.over_time(arms, styles),
        "latency_by_length": figures.latency_by_length(arms, styles),
        "prediction_errors": figures.prediction_errors(arms, styles),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trail.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": seconds_text, "count": count_text, "speedup": speedup_text}
    return environment.get_template("report.html.j2").render(
        r=results,
        model_name=results["config"]["model"].rstrip("/").rsplit("/", 1)[-1],
        arms=arms,
        all_styles=list(styles.values()),
        statistics=STATISTICS,
        figures={name: Markup(svg) if svg else None for name, svg in drawn.items()},  # noqa: S704 - our own drawing
        best=_best(arms),
        error_text=error_text,
    )


def _best(arms: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arm with the lowest mean latency among those that could be deployed; the oracle could not."""
    candidates = {
        n: a
        for n, a in arms.items()
        if not n.startswith("oracle") and a["speedup"] and a["speedup"]["latency_s"]
    }
    if not candidates:
        return None
    name = max(candidates, key=lambda n: candidates[n]["speedup"]["latency_s"]["mean"])
    return {"name": name, **candidates[name]["speedup"]}
