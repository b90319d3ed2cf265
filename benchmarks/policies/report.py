"""policies.json to one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from benchmarks.policies import figures
from benchmarks.policies.judge import FRONTIER_SLACK, OURS
from benchmarks.policies.settings import KNOB, Case
from trail.report.page import environment
from trail.report.palette import ArmStyle, arm_styles

_QUANTITIES = ("mean_ratio", "ttft_ratio", "p99_ratio")


def render(document: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, light and dark."""
    rows = document["settings"]
    names = list(dict.fromkeys(arm for row in rows for arm in row["arms"]))
    shown = [name for name in names if name not in KNOB]
    styles = arm_styles(shown)
    groups = _groups(rows)
    templates = environment("benchmarks.policies")
    templates.filters["ratio"] = _ratio
    return templates.get_template("policies.html.j2").render(
        d=document,
        headline=_headline(document),
        groups=[_section(name, members, styles) for name, members in groups.items()],
        arms=shown,
        knob=[name for name in names if name in KNOB],
        quantities=_QUANTITIES,
        frontiers=[
            (memory, _drawn(figures.frontiers([r for r in rows if r["memory"] == memory], styles, memory)))
            for memory in dict.fromkeys(row["memory"] for row in rows)
        ],
        slack=FRONTIER_SLACK,
        all_styles=list(styles.values()),
        styles=styles,
    )


def _headline(document: Mapping[str, Any]) -> str:
    targets = document["targets"]
    reached = sum(target["reached"] for target in targets)
    return f"{OURS} against every baseline: {reached} of {len(targets)} targets reached everywhere"


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what they share beside the load."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        case = Case(row["lengths"], row["arrivals"], row["memory"], row["device"], ())
        groups.setdefault(case.name, []).append(row)
    return groups


def _section(name: str, rows: Sequence[Mapping[str, Any]], styles: Mapping[str, ArmStyle]) -> dict[str, Any]:
    drawn = figures.over_load(rows, styles, name.replace(" ", "-").replace(",", ""))
    return {"name": name, "rows": rows, "figure": _drawn(drawn)}


def _drawn(text: str | None) -> Markup | None:
    return Markup(text) if text else None  # noqa: S704 - our own drawing


def _ratio(entry: Mapping[str, Any], quantity: str) -> Markup:
    """A ratio, its interval over seeds beneath."""
    bounds = entry.get(f"{quantity}_ci95")
    value = f"{entry[quantity]:.2f}"
    if not bounds:
        return Markup(value)  # noqa: S704 - a number
    return Markup("{}<small>{:.2f}-{:.2f}</small>").format(value, *bounds)
