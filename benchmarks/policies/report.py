"""policies.json to one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.policies import figures
from benchmarks.policies.judge import FRONTIER_SLACK, OURS
from benchmarks.policies.settings import KNOB, Case
from trail.report.figures import Styles
from trail.report.page import page
from trail.report.palette import arm_styles
from trail.report.table import Cell, Table
from trail.simulation.assemble import RATIOS

Rows = Sequence[Mapping[str, Any]]


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    rows = document["settings"]
    names = list(dict.fromkeys(arm for row in rows for arm in row["arms"]))
    styles = arm_styles([name for name in names if name not in KNOB])
    arms = [*styles, *(name for name in names if name in KNOB)]
    memories = dict.fromkeys(row["memory"] for row in rows)
    return page(
        "benchmarks.policies",
        "policies.html.j2",
        headline=_headline(document),
        styles=styles.values(),
        d=document,
        slack=FRONTIER_SLACK,
        targets=_targets(document["targets"]),
        frontiers=[
            (memory, figures.frontiers([r for r in rows if r["memory"] == memory], styles, memory))
            for memory in memories
        ],
        gaps=_gaps(document["frontier"]),
        groups=[
            (name, figures.over_load(alike, styles, name), _ratios(alike, arms, styles))
            for name, alike in _groups(rows).items()
        ],
        paper_regime=_found(document["paper_regime"], ["mean", "TTFT", "p99"], [*RATIOS]),
        losses=_found(
            document["losses"],
            ["its mean", "its p99", "adaptive's mean", "adaptive's p99"],
            ["mean_ratio", "p99_ratio", "own_mean_ratio", "own_p99_ratio"],
        ),
    )


def _headline(document: Mapping[str, Any]) -> str:
    targets = document["targets"]
    reached = sum(target["reached"] for target in targets)
    return f"{OURS} against every baseline: {reached} of {len(targets)} targets reached everywhere"


def _targets(targets: Rows) -> Table:
    rows = [
        [
            t["name"],
            f"{t['asked']:.2f}",
            Cell(f"{t['worst']:.2f}", warn=not t["reached"]),
            f"{t['reached_in']} of {t['settings']}",
            Cell(t["where"], prose=True),
        ]
        for t in targets
    ]
    return Table(["target", "at most", "worst", "reached in", "where it is worst"], rows)


def _gaps(frontier: Rows) -> Table | None:
    if not frontier:
        return None
    rows = [
        [f["name"], *(Cell(_number(gap), warn=name in f["beyond"]) for name, gap in f["gaps"].items())]
        for f in frontier
    ]
    return Table(["setting", *frontier[0]["gaps"]], rows)


def _groups(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what they share beside the load."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        case = Case(row["lengths"], row["arrivals"], row["memory"], row["device"], ())
        groups.setdefault(case.name, []).append(row)
    return groups


def _ratios(rows: Rows, arms: Sequence[str], styles: Styles) -> Table:
    """An arm a line, its ratios at every load."""
    return Table(
        ["policy", *("mean", "TTFT", "p99") * len(rows)],
        [
            [arm, *(_ratio(row["arms"].get(arm), quantity) for row in rows for quantity in RATIOS)]
            for arm in arms
            if arm in rows[0]["arms"]
        ],
        styles,
        groups=[(f"load {row['load']:g}", len(RATIOS)) for row in rows],
        bold={OURS},
    )


def _ratio(entry: Mapping[str, Any] | None, quantity: str) -> Cell:
    """A ratio, its interval over seeds beneath."""
    if entry is None:
        return Cell("")
    bounds = entry.get(f"{quantity}_ci95")
    return Cell(_number(entry[quantity]), f"{bounds[0]:.2f}-{bounds[1]:.2f}" if bounds else "")


def _found(found: Rows, headings: Sequence[str], keys: Sequence[str]) -> Table | None:
    """Settings and policies that something is true of."""
    rows = [[entry["name"], entry["arm"], *(_number(entry[key]) for key in keys)] for entry in found]
    return Table(["setting", "policy", *headings], rows) if rows else None


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
