"""`python -m benchmarks.drift`: is a spoilt probe found, a good one left alone, a shift corrected?"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.drift.answers import Answers, record_answers
from benchmarks.drift.cost import costs
from benchmarks.drift.lives import FAULTS, Fault, lives, stretched
from benchmarks.drift.runs import advantages, alarms_at_equality, draws, errors, requests_until
from trail.demo import demo_predictor_dir
from trail.predict.drift import ALARM
from trail.predict.manifest import MANIFEST_FILE
from trail.predict.quality import EndedRequest, Quality
from trail.report.stages import Stages, shown
from trail.simulation.cache import Cache
from trail.wire.files import write_json

DETECTED_WITHIN = 200
LONG_RUN = 5000
HURTS_AT_MOST = 0.01
_GOOD_BEFORE = 1000
_LATEST = 2000
_FACTORS = (1.0, 0.6, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    runs: int
    good_runs: int
    equal_runs: int
    shifted_requests: int
    seed: int


def check(answers: Answers, plan: Plan, stages: Stages) -> dict[str, Any]:
    """Everything that the report says, ready for JSON."""
    good = lives(answers, answers.outputs)
    with stages.stage("spoilt probes", len(FAULTS) * plan.runs) as advance:
        faults = [_fault(fault, answers, good, plan, advance) for fault in FAULTS]
    with stages.stage("good probe, long runs", plan.good_runs) as advance:
        off = 0
        for run in range(plan.good_runs):
            rng = np.random.default_rng((plan.seed, 1, run))
            off += (
                requests_until(Quality(answers.manifest), good, trusted=False, most=LONG_RUN, rng=rng)
                is not None
            )
            advance(1)
    with stages.stage("no better and no worse", 1) as advance:
        sizes = np.abs(advantages(answers, good))
        alarms = alarms_at_equality(sizes, runs=plan.equal_runs, requests=LONG_RUN, seed=plan.seed)
        advance(1)
    with stages.stage("shifts of length", len(_FACTORS)) as advance:
        shifts = [_shift(answers, good, factor, plan, advance) for factor in _FACTORS]
    return {
        "answers": len(good),
        "runs": plan.runs,
        "seed": plan.seed,
        "faults": faults,
        "good": {"runs": plan.good_runs, "requests": LONG_RUN, "switched_off": off},
        "equal": {
            "runs": plan.equal_runs,
            "requests": LONG_RUN,
            "alarms": alarms,
            "bound": LONG_RUN / ALARM,
        },
        "shifts": shifts,
        "cost": costs(answers, good),
        "reached": {
            "detected": all(
                fault[when]["latest"] is not None and fault[when]["latest"] <= DETECTED_WITHIN
                for fault in faults
                if "permuted" in fault["name"]
                for when in ("from_the_start", "after_good")
            ),
            "left_alone": off == 0,
            "hurts_little": shifts[0]["corrected"] <= (1 + HURTS_AT_MOST) * shifts[0]["as_trained"],
        },
    }


def _fault(
    fault: Fault, answers: Answers, good: Sequence[EndedRequest], plan: Plan, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Requests until the probe is off, spoilt from the start and after good ones, and until it is back."""
    start: list[int | None] = []
    later: list[int | None] = []
    back: list[int | None] = []
    for run in range(plan.runs):
        rng = np.random.default_rng((plan.seed, 0, run))
        bad = lives(answers, fault.spoil(answers.outputs, rng))
        start.append(requests_until(Quality(answers.manifest), bad, trusted=False, most=_LATEST, rng=rng))
        quality = Quality(answers.manifest)
        for batch in draws(good, _GOOD_BEFORE, rng):
            quality.take(batch)
        later.append(requests_until(quality, bad, trusted=False, most=_LATEST, rng=rng))
        back.append(requests_until(quality, good, trusted=True, most=_LATEST, rng=rng))
        advance(1)
    return {
        "name": fault.name,
        "from_the_start": _summary(start),
        "after_good": _summary(later),
        "back": _summary(back),
    }


def _summary(found: Sequence[int | None]) -> dict[str, Any]:
    """Median and latest in requests; `latest` is None where it did not come within _LATEST."""
    counts = [_LATEST + 1 if value is None else value for value in found]
    median, latest = float(np.median(counts)), max(counts)
    return {
        "never": sum(value is None for value in found),
        "median": median if median <= _LATEST else None,
        "latest": latest if latest <= _LATEST else None,
    }


def _shift(
    answers: Answers, good: Sequence[EndedRequest], factor: float, plan: Plan, advance: Callable[[int], None]
) -> dict[str, Any]:
    moved = [stretched(life, factor) for life in good] if factor != 1.0 else good
    (as_trained, before), (corrected, after) = (
        errors(answers, moved, corrects=corrects, requests=plan.shifted_requests, seed=plan.seed)
        for corrects in (False, True)
    )
    advance(1)
    return {
        "factor": factor,
        "as_trained": as_trained,
        "corrected": corrected,
        "coverage80_as_trained": before,
        "coverage80_corrected": after,
    }


def show(console: Console, document: dict[str, Any]) -> None:
    """Prints the figures."""
    table = Table("probe", "off, spoilt from the start", f"off, after {_GOOD_BEFORE} good", "back again")
    for fault in document["faults"]:
        table.add_row(
            fault["name"], *(_text(fault[when]) for when in ("from_the_start", "after_good", "back"))
        )
    console.print(table)
    console.print("requests until the verdict changes: median / latest of all runs", highlight=False)
    good, equal = document["good"], document["equal"]
    console.print(
        f"good probe: switched off in {good['switched_off']} of {good['runs']} runs of {good['requests']}"
        f" requests\nno better and no worse than no probe: switched off in {equal['alarms']} of"
        f" {equal['runs']} runs of {equal['requests']} requests; the bound is {100 * equal['bound']:.2g} %",
        highlight=False,
    )
    table = Table("answers are longer by", "error", "corrected", "change", "80 % cover", "corrected")
    for shift in document["shifts"]:
        change = shift["corrected"] / shift["as_trained"] - 1
        table.add_row(
            f"{shift['factor']:g}", f"{shift['as_trained']:.2f}", f"{shift['corrected']:.2f}",
            f"{100 * change:+.1f} %", f"{100 * shift['coverage80_as_trained']:.1f} %",
            f"{100 * shift['coverage80_corrected']:.1f} %",
        )  # fmt: skip
    console.print(table)
    cost = document["cost"]
    console.print(
        f"CPU time: in the loop {cost['loop_us_per_finished']:.1f} us a finished request and"
        f" {cost['loop_us_per_batch']:.1f} us a batch of 64 predictions; in the thread beside it"
        f" {cost['thread_us_per_finished']:.0f} us a finished request",
        highlight=False,
    )


def _text(summary: dict[str, Any]) -> str:
    median, latest = summary["median"], summary["latest"]
    missed = f", {summary['never']} never" if summary["never"] else ""
    return f"{'-' if median is None else f'{median:g}'} / {'-' if latest is None else latest}{missed}"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every target is reached, 1 when one is not, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift",
        description="Answers of the demo model, drawn again and again as finished requests, with the demo"
        " predictor as it is and spoilt: how soon a spoilt probe is switched off, whether a good one ever is,"
        " and what the correction does to a shift of lengths.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/drift"), help="directory of drift.json (%(default)s)")
    add("--answers", type=int, default=600, help="answers to record, unless --out has them (%(default)s)")
    add("--runs", type=int, default=20, help="runs of every spoilt probe (%(default)s)")
    add("--good-runs", type=int, default=60, help="runs of the good probe (%(default)s)")
    add("--equal-runs", type=int, default=2000, help="runs at equality (%(default)s)")
    add("--shifted-requests", type=int, default=5000, help="requests under each shift (%(default)s)")
    add("--seed", type=int, default=31, help="of prompts, answers and runs; not 1 (%(default)s)")
    args = parser.parse_args(argv)
    if min(args.answers, args.runs, args.good_runs, args.equal_runs) < 1 or args.shifted_requests < 500:
        parser.error("--answers and runs must be at least 1, --shifted-requests at least 500")
    if args.seed == 1:
        parser.error("--seed 1 is what the demo predictor was trained with; give another")
    args.out.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    plan = Plan(args.runs, args.good_runs, args.equal_runs, args.shifted_requests, args.seed)
    with shown() as stages:
        document = check(_answers(args.out, args.answers, args.seed, stages), plan, stages)
    document["seconds"] = time.monotonic() - began_s
    write_json(args.out / "drift.json", document)
    console = Console()
    show(console, document)
    missed = [name for name, reached in document["reached"].items() if not reached]
    console.print(f"missed: {', '.join(missed)}" if missed else "every target is reached")
    return 1 if missed else 0


def answers_file(out: Path, count: int, seed: int) -> Path:
    """Where answers are kept, by the code that records them and the predictor that is asked."""
    key = Cache(out, record_answers.__module__).key(count, seed, demo_predictor_dir() / MANIFEST_FILE)
    return out / f"answers-{key}.npz"


def _answers(out: Path, count: int, seed: int, stages: Stages) -> Answers:
    """Recorded by an earlier call, or recorded."""
    path = answers_file(out, count, seed)
    if path.is_file():
        return Answers.load(path)
    recorded = record_answers(count, seed, stages)
    unfinished = path.with_name(f".{path.name}")
    recorded.save(unfinished)
    unfinished.replace(path)
    return recorded


if __name__ == "__main__":
    sys.exit(main())
