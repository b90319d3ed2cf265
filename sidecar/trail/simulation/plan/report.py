"""The plan's document to one HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from trail.report.page import Folded, Soft, figure, page, points, section
from trail.report.palette import arm_styles
from trail.simulation.plan import figures
from trail.simulation.plan.table import at_load_with_intervals, over_load
from trail.simulation.plan.wording import MISLEADS, findings, headline


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    workload = document["workload"]
    styles = arm_styles(list(document["arms"]))
    file_name = Path(workload["lengths"]).name
    within = document["c"] is not None
    return page(
        title=f"TRAIL plan: {file_name}",
        headline=headline(document),
        lead=[
            file_name,
            f"{workload['requests']:,} lengths of {workload['mean_tokens']:,.0f} tokens in the mean, squared"
            f" coefficient of variation {workload['squared_cv']:.2f}",
            f"predictions {workload['predictions']}, off by {workload['mae_tokens']:,.0f} tokens in the mean",
            document["created_at"],
        ],
        styles=styles.values(),
        sections=[
            section("What follows", points(findings(document))),
            section("Where this misleads", points(MISLEADS), warning=True),
            section(
                "Over load",
                figure(
                    figures.over_load(document, styles),
                    "By the closed form. Load is the share of a replica's capacity that is asked for; the"
                    " grey line is the load asked about. Slowdown is a request's response time over its own"
                    " size.",
                ),
                over_load(document, styles),
            ),
            section(
                f"At load {document['question']['load']:.3g}",
                at_load_with_intervals(document, styles),
                Soft(
                    "Response times in the queue of one server. Small print: 95 % interval of the simulated"
                    " mean."
                ),
            )
            if within
            else None,
            section(
                "Which c",
                figure(
                    figures.by_c(document),
                    "Mean response time by order alone, at the same load: preemption costs nothing here. The"
                    " axis does not start at 0.",
                ),
            ),
            section("", Folded("How this was worked out", _facts(document))),
        ],
    )


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    service = document["service"]
    replica = f"{service['tokens_per_s']:,.1f} tokens/s, {service['origin']}"
    if service["slots"]:
        replica += (
            f"; latency on {service['slots']:,} slots: a slot's time for the tokens, plus the wait times"
            " Erlang's C over the load"
        )
    return [
        ("Lengths", document["workload"]["lengths"]),
        ("Command", Markup("<code>{}</code>").format(document["command"])),
        (
            "Closed form",
            "M/G/1, shortest predicted remaining first with limited preemption (arXiv 2410.01035); first"
            " come, first served by Pollaczek and Khinchine",
        ),
        ("Replica", replica),
        ("Seed of the simulation", str(document["question"]["seed"])),
    ]
