"""What the page and the terminal say in words, computed from the numbers, for better and for worse."""

from collections.abc import Iterable, Mapping
from typing import Any

OURS, PAPER = "default", "trail-paper-refined"
_CALLED = {OURS: "the default predictor", PAPER: "the paper's recipe"}

ARM_MEANINGS = {
    "constant": "always the median remaining length of the training answers' steps",
    "position": "learned from the number of tokens so far alone, without hidden states",
    "prompt": "the whole length that the prompt predictor expects, nothing counted off",
    "prompt-countdown": "the same, less the tokens generated",
    "trail-paper-raw": "the paper's probe at the step alone, trained on the same answers",
    "trail-paper-refined": "the same, refined over the answer as in TRAIL, section 3: the paper's recipe",
    "default": "the predictor that is evaluated",
}

Document = Mapping[str, Any]


def tokens_text(value: float | None) -> str:
    """Tokens with at least three significant digits; `-` for None."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"


def share_text(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; `-` for None."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def range_text(low: float | None, high: float | None) -> str:
    """`17.5 to 18.9` tokens; `-` where there is no interval."""
    return "-" if low is None or high is None else f"{tokens_text(low)} to {tokens_text(high)}"


def excess(arm: Mapping[str, Any], floor: Mapping[str, Any] | None) -> float | None:
    """By what share of the floor the arm's error lies above it; None without a floor."""
    return None if floor is None or not floor["mae"] else arm["mae"] / floor["mae"] - 1


def headline(document: Document) -> str:
    """The result in a sentence: the default predictor against the paper's recipe, whoever wins."""
    arms = document["arms"]
    if OURS not in arms or PAPER not in arms:
        best = _lowest(arms)
        return f"{_called(best)} errs least: by {tokens_text(arms[best]['mae'])} tokens on average"
    ours, papers = arms[OURS]["mae"], arms[PAPER]["mae"]
    found = document["differences"].get(f"{OURS} against {PAPER}") or {}
    if _undecided(found):
        return (
            f"{_called(OURS)} and {_CALLED[PAPER]} cannot be told apart: they err by {tokens_text(ours)} and"
            f" {tokens_text(papers)} tokens on average"
        )
    start = f"{_called(OURS)} errs by {tokens_text(ours)} tokens on average"
    if ours == papers or not papers:
        return f"{start}, {_CALLED[PAPER]} by {tokens_text(papers)}"
    word = "less" if ours < papers else "more"
    return f"{start}, {share_text(abs(ours / papers - 1))} {word} than {_CALLED[PAPER]}"


def findings(document: Document) -> list[str]:
    """Sentences below the headline: the floor, the best arm, each difference, where the paper's is better."""
    arms, floor = document["arms"], document["floor"]
    best = _lowest(arms)
    sentences = [_against_floor(arms[OURS], floor)] if OURS in arms and floor else []
    if OURS in arms and best != OURS:
        sentences.append(
            f"{_called(best)} errs least of all: by {tokens_text(arms[best]['mae'])} tokens, the default"
            f" predictor by {tokens_text(arms[OURS]['mae'])}."
        )
    sentences += [_difference(name, found) for name, found in document["differences"].items()]
    if OURS in arms and PAPER in arms:
        sentences += [where_paper_is_better(document), *_better_measures(arms[OURS], arms[PAPER])]
    return sentences


def where_paper_is_better(document: Document) -> str:
    """In which tenth of progress, band of whole length or kind of prompt the paper's recipe errs less."""
    ours, papers = document["arms"][OURS], document["arms"][PAPER]
    deciles = [f"{10 * i}-{10 * i + 10} %" for i in range(len(ours["by_decile"]))]
    bands = [band_text(band) for band in ours["by_length"]]
    pairs: dict[str, Iterable[tuple[str, Any, Any]]] = {
        "tenths of progress": zip(deciles, ours["by_decile"], papers["by_decile"], strict=True),
        "bands of whole lengths": zip(bands, ours["by_length"], papers["by_length"], strict=True),
    }
    if ours["by_kind"] and papers["by_kind"]:
        kinds = [kind for kind in ours["by_kind"] if kind in papers["by_kind"]]
        pairs["kinds of prompt"] = ((kind, ours["by_kind"][kind], papers["by_kind"][kind]) for kind in kinds)
    places = []
    for groups, compared in pairs.items():
        judged = [c for c in compared if c[1]["mae"] is not None and c[2]["mae"] is not None]
        better = [
            f"{name} ({theirs['mae']:.2f} against {own['mae']:.2f} tokens)"
            for name, own, theirs in judged
            if theirs["mae"] < own["mae"]
        ]
        if better and len(better) == len(judged):
            places.append(f"in all {len(judged)} {groups}")
        elif better:
            places.append(f"in {len(better)} of {len(judged)} {groups}: {', '.join(better)}")
    if not places:
        *others, last = pairs
        where = f"{', '.join(others)} or {last}"
        return f"The paper's recipe errs less than the default predictor in none of the {where}."
    return f"The paper's recipe errs less than the default predictor {'; '.join(places)}."


def band_text(band: Mapping[str, Any]) -> str:
    """`12-45 tokens`: a band of whole lengths, both ends included."""
    return f"{band['from_tokens']}-{band['to_tokens']} tokens"


def speed_findings(document: Document) -> list[str]:
    """What a prediction costs at the smallest and the largest batch, for every device and dtype."""
    sentences = []
    for name, points in speed_series(document["speed"] or []).items():
        costs = [f"{micros:.3g} µs a request at batch {batch:,}" for batch, micros in points]
        shown = costs[0] if len(costs) == 1 else f"{costs[0]}, {costs[-1]}"
        sentences.append(f"{name}: {shown}.")
    if sentences and document["step_ms"]:
        sentences.append(f"One step of the model takes {document['step_ms']:.3g} ms.")
    return sentences


def speed_series(speed: list[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(batch, microseconds a sample), ascending in the batch, for every `device, dtype`."""
    series: dict[str, list[tuple[int, float]]] = {}
    for point in sorted(speed, key=lambda p: p["batch"]):
        name = f"{point['device']}, {point['dtype']}"
        series.setdefault(name, []).append((point["batch"], point["us_per_sample"]))
    return series


def _against_floor(arm: Mapping[str, Any], floor: Mapping[str, Any]) -> str:
    above = excess(arm, floor)
    if above is None:
        return "The model's continuations leave no doubt: the floor is 0 tokens."
    side = "above" if above >= 0 else "below"
    interval = range_text(floor["mae_low"], floor["mae_high"])
    return (
        f"The default predictor's error lies {share_text(abs(above))} {side} the floor of"
        f" {tokens_text(floor['mae'])} tokens ({interval}), which no predictor can beat because the model"
        f" itself draws its answers; it is estimated from {floor['continuations']:,} continuations at each of"
        f" {floor['steps']:,} steps."
    )


def _difference(name: str, found: Mapping[str, Any]) -> str:
    tokens = f"{found['difference']:+.2f} tokens"
    if found["low"] is not None:
        tokens += f" ({found['low']:+.2f} to {found['high']:+.2f})"
    if found["relative"] is not None:
        tokens += f", {100 * found['relative']:+.1f} %"
        if found["relative_low"] is not None:
            tokens += f" ({100 * found['relative_low']:+.1f} to {100 * found['relative_high']:+.1f} %)"
    verdict = " The interval holds 0: this is no proof of a difference." if _undecided(found) else ""
    return f"{name[:1].upper()}{name[1:]}: mean absolute error {tokens}.{verdict}"


def _better_measures(ours: Mapping[str, Any], papers: Mapping[str, Any]) -> list[str]:
    measures = [("RMSE", "rmse", 1.0, 2), ("Kendall's tau", "kendall_tau", -1.0, 3), ("ECE", "ece", 1.0, 4)]
    better = []
    for label, key, sign, digits in measures:
        own, theirs = ours.get(key), papers.get(key)
        if own is not None and theirs is not None and sign * theirs < sign * own:
            better.append(f"{label} ({theirs:.{digits}f} against {own:.{digits}f})")
    return [f"Over all steps the paper's recipe is better in {', '.join(better)}."] if better else []


def _undecided(found: Mapping[str, Any]) -> bool:
    low, high = found.get("low"), found.get("high")
    return low is not None and high is not None and low <= 0 <= high


def _lowest(arms: Mapping[str, Any]) -> str:
    return min(arms, key=lambda name: float(arms[name]["mae"]))


def _called(name: str) -> str:
    words = _CALLED.get(name, name)
    return words[:1].upper() + words[1:]
