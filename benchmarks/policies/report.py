"""policies.json to one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.policies import figures
from benchmarks.policies.judge import FRONTIER_SLACK, OURS
from benchmarks.policies.settings import KNOB, Case
from trail.report.figures import Styles
from trail.report.page import Folded, Section, Soft, figure, page, section
from trail.report.palette import arm_styles
from trail.report.table import Cell, Table
from trail.simulation.assemble import RATIOS

Rows = Sequence[Mapping[str, Any]]

_FRONTIER = (
    "The line is adaptive over kappa, from first come, first served (top left) to pure order by size; the"
    " large dot is its default. A policy below and left of the line is better than any kappa."
)


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    rows = document["settings"]
    names = list(dict.fromkeys(arm for row in rows for arm in row["arms"]))
    styles = arm_styles([name for name in names if name not in KNOB])
    arms = [*styles, *(name for name in names if name in KNOB)]
    return page(
        title="TRAIL: policies in the simulator",
        headline=_headline(document),
        lead=[_lead(document)],
        styles=styles.values(),
        sections=[
            section("Targets of adaptive, one default setting everywhere", _targets(document["targets"])),
            *(
                section(
                    f"Mean against p99 under overload, {memory}",
                    figure(
                        figures.frontiers([r for r in rows if r["memory"] == memory], styles, memory),
                        _FRONTIER,
                    ),
                )
                for memory in dict.fromkeys(row["memory"] for row in rows)
            ),
            _against_baselines(document["frontier"]),
            *(_group(name, members, arms, styles) for name, members in _groups(rows).items()),
            section("Where trail has the paper's figures", _paper_regime(document["paper_regime"])),
            section("Where another policy has the lower mean latency", _losses(document["losses"])),
            section("", Folded("How this was simulated", _cases(document["cases"]))),
        ],
    )


def _headline(document: Mapping[str, Any]) -> str:
    targets = document["targets"]
    reached = sum(target["reached"] for target in targets)
    return f"{OURS} against every baseline: {reached} of {len(targets)} targets reached everywhere"


def _lead(document: Mapping[str, Any]) -> str:
    tuning = ", the part of the data that parameters are chosen on" if document["tuning"] else ""
    return (
        "Simulated vLLM engines; every figure is a ratio to stock first come, first served on the same"
        f" requests: below 1 is better. {document['requests']:,} requests a run, twice as many beyond"
        f" capacity; seeds {', '.join(map(str, document['seeds']))}{tuning}."
    )


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


def _against_baselines(frontier: Rows) -> Section | None:
    if not frontier:
        return None
    rows = [
        [f["name"], *(Cell(_number(gap), warn=name in f["beyond"]) for name, gap in f["gaps"].items())]
        for f in frontier
    ]
    return section(
        "The frontier against each baseline",
        Soft(
            "Mean latency of adaptive at no more than the baseline's p99, to the baseline's mean latency. At"
            f" most {FRONTIER_SLACK:.2f}: the frontier lies on or above it."
        ),
        Table(["setting", *frontier[0]["gaps"]], rows),
    )


def _groups(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what they share beside the load."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        case = Case(row["lengths"], row["arrivals"], row["memory"], row["device"], ())
        groups.setdefault(case.name, []).append(row)
    return groups


def _group(name: str, rows: Rows, arms: Sequence[str], styles: Styles) -> Section | None:
    drawn = figures.over_load(rows, styles, name.replace(" ", "-").replace(",", ""))
    table = Table(
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
    return section(name, figure(drawn, "Bars: 95 % intervals of adaptive over seeds."), table)


def _ratio(entry: Mapping[str, Any] | None, quantity: str) -> Cell:
    """A ratio, its interval over seeds beneath."""
    if entry is None:
        return Cell("")
    bounds = entry.get(f"{quantity}_ci95")
    return Cell(_number(entry[quantity]), f"{bounds[0]:.2f}-{bounds[1]:.2f}" if bounds else "")


def _paper_regime(found: Rows) -> Table | Soft:
    if not found:
        return Soft("Nowhere on this grid: mean latency 1.66 times and TTFT 5 times lower than stock.")
    rows = [[p["name"], p["arm"], *(_number(p[quantity]) for quantity in RATIOS)] for p in found]
    return Table(["setting", "policy", "mean", "TTFT", "p99"], rows)


def _losses(found: Rows) -> Table | Soft:
    if not found:
        return Soft("Nowhere on this grid.")
    keys = ("mean_ratio", "p99_ratio", "own_mean_ratio", "own_p99_ratio")
    rows = [[loss["name"], loss["arm"], *(_number(loss[key]) for key in keys)] for loss in found]
    headings = ("setting", "policy", "its mean", "its p99", "adaptive's mean", "adaptive's p99")
    return Table(headings, rows)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _cases(cases: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            name,
            f"{case['source']}; capacity of stock {case['requests_per_s']:.2f} requests/s; predictions by"
            f" {case['predictor']}, off by {case['prediction']['initial_mae_tokens']:.0f} tokens at first and"
            f" {case['prediction']['refined_mae_tokens']:.0f} later",
        )
        for name, case in cases.items()
    ]
