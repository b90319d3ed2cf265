"""A shadow report's document to one HTML page."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trail.report.figures import Styles, shares_within
from trail.report.page import Facts, figure, page, points, section
from trail.report.palette import arm_styles
from trail.report.stats import STATISTICS
from trail.report.table import Table, seconds_text

_TIMES = ("latency_s", "ttft_s")


def headline(document: Mapping[str, Any]) -> str:
    """The best policy's estimated gain in a sentence."""
    best, found = max(document["gains"].items(), key=lambda item: item[1]["mean_latency_s"])
    gain = found["mean_latency_s"]
    if gain < 1:
        return f"{best} would not answer sooner: mean latency {1 / gain:.2f} times higher"
    return f"{best} would lower the mean latency {gain:.2f} times"


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    styles = arm_styles(list(document["arms"]))
    engines = len(document["engines"])
    return page(
        title=f"TRAIL in shadow: {document['log']}",
        headline=headline(document),
        lead=[
            document["log"],
            f"{document['requests']:,} requests in {document['seconds']:.0f} s",
            f"{engines} engine{'s' if engines != 1 else ''}",
        ],
        tiles=_tiles(document),
        styles=styles.values(),
        sections=[
            section("To know before reading on", points(document["notes"]), warning=True),
            section(
                "Who would wait how long",
                figure(
                    _curves(document, styles),
                    "“logged” is what happened, in the engine's own order; “fcfs” is the same order in the"
                    " simulator; the others are what they would have made of the same requests. Further left"
                    " is better.",
                ),
                _table(document, styles),
            ),
            section("How this was estimated", Facts(_facts(document))),
        ],
    )


def _curves(document: Mapping[str, Any], styles: Styles) -> str:
    def curve(values: Any) -> tuple[Any, Any]:
        return np.maximum(values, 1e-4), np.linspace(0, 1, len(values))

    curves = {name: {q: curve(found[q] or []) for q in _TIMES} for name, found in document["curves"].items()}
    return shares_within("shadow", curves, styles)


def _table(document: Mapping[str, Any], styles: Styles) -> Table:
    columns = [(quantity, statistic) for quantity in _TIMES for statistic in STATISTICS]
    return Table(
        ["arm", *(statistic for _, statistic in columns)],
        [
            [name, *(seconds_text(arm[q][s] if arm[q] else None) for q, s in columns)]
            for name, arm in document["arms"].items()
        ],
        styles,
        groups=[("latency, seconds", 4), ("time to first token, seconds", 4)],
    )


def _tiles(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    tiles = []
    for name, gain in document["gains"].items():
        tiles += [
            (f"{gain['mean_latency_s']:.2f}x", f"lower mean latency, {name}, estimated"),
            (f"{gain['mean_ttft_s']:.2f}x", f"lower mean time to first token, {name}"),
            (f"{gain['p99_latency_s']:.2f}x", f"lower p99 latency, {name} (below 1: higher)"),
        ]
    if document["fidelity"] is not None:
        meaning = "simulated over logged mean latency in the engine's own order (1 is right)"
        tiles.append((f"{document['fidelity']:.2f}", meaning))
    return tiles


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            "Requests",
            f"{document['requests']:,} replayed, {document['left_out']} left out (aborted before a token,"
            " not known from their arrival on, or served while the sidecar was silent),"
            f" {document['unpredicted']} without a prediction (the mean stands in)",
        ),
        *((f"Engine {engine['engine']}", _engine(engine)) for engine in document["engines"]),
        ("Token budget", f"{document['token_budget']} a step"),
        ("Prediction lag", f"{document['prediction_lag']} steps"),
    ]


def _engine(engine: Mapping[str, Any]) -> str:
    steps, predictions = engine["steps"], engine["predictions"]
    return (
        f"{engine['model']}; {engine['slots']} slots, {engine['kv_blocks']} KV blocks of"
        f" {engine['block_tokens']} tokens; a step takes {1000 * steps['fixed_s']:.3g} ms +"
        f" {1000 * steps['sequence_s']:.3g} ms a sequence + {1e6 * steps['prefill_token_s']:.3g} µs a prompt"
        f" token + {1e6 * steps['kv_token_s']:.3g} µs a KV token, off by"
        f" {100 * steps['error']['mean_relative']:.1f} % on {steps['error']['intervals']} stretches;"
        f" predictions off by {predictions['initial_mae_tokens']:.1f} tokens before,"
        f" {predictions['refined_mae_tokens']:.1f} while generating"
    )
