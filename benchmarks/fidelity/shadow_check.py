"""`python -m benchmarks.fidelity.shadow_check`: a shadow report's gain beside the gain when switched on.

One `trail bench` serves the same requests to the demo model twice in every repeat, with the policy in shadow
and with it on, while the sidecar logs its decisions. What the log of the shadow runs makes the simulator
expect is compared with what the client measured. A shared machine changes its speed from run to run, and with
it a queue: how long steps took in both runs is said, and what would be expected at the speed of the second.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from trail.bench.results import read_results
from trail.commands.shadow_report import LAG_STEPS
from trail.policy.spec import PolicySpec, parse_policy
from trail.report.stats import mean_interval
from trail.report.table import Table, print_table
from trail.serving.launch import run_to_end
from trail.simulation.shadow.log import SHADOW, EngineLog, LogError, read_log
from trail.simulation.shadow.replay import arm, gains, prepare
from trail.wire.files import write_json
from trail.wire.names import ENV_DECISION_LOG

WITHIN = 0.15
"""How far the estimate may be from the measured gain, as a share of it."""
TOKEN_BUDGET = 16384
_VLLM = ("--max-num-seqs", "16", "--max-num-batched-tokens", str(TOKEN_BUDGET), "--block-size", "32")
_GAINS = ("measured", "estimated", "estimated_at_speed")
_QUANTITIES = ("mean_latency_s", "mean_ttft_s", "p99_latency_s")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when the estimated gain in mean latency is within `WITHIN` of the measured one, else 1."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.fidelity.shadow_check",
        description="The gain that a shadow report estimates beside the gain that switching on gives.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/shadow-check"), help="directory (%(default)s)")
    add("--policy", default="trail-c0.2", help="(%(default)s)")
    add("--load", default="1.3x", help="as of trail bench (%(default)s)")
    add("--requests", type=int, default=600, help="of a run (%(default)s)")
    add("--repeats", type=int, default=3, help="(%(default)s)")
    args = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False)
    try:
        spec = parse_policy(args.policy)
        log = args.out / "decisions.jsonl"
        _measure(args, log)
        document = judge(read_results(args.out / "results.json"), _only_engine(log), spec)
    except (ValueError, RuntimeError, OSError) as error:
        console.print(f"benchmarks.fidelity.shadow_check: {error}")
        return 2
    write_json(args.out / "shadow-check.json", document)
    _show(console, document)
    console.print(f"written: {args.out / 'shadow-check.json'}")
    return 0 if document["within"] else 1


def _measure(args: argparse.Namespace, log: Path) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob(f"{log.name}*"):
        old.unlink()
    os.environ[ENV_DECISION_LOG] = str(log.resolve())
    run_to_end(
        [
            sys.executable, "-m", "trail", "bench", "demo", "--arms", f"{args.policy}{SHADOW},{args.policy}",
            "--load", args.load, "--requests", str(args.requests), "--repeats", str(args.repeats),
            "--max-tokens", "640", "--out", str(args.out), *_VLLM,
        ]
    )  # fmt: skip


def _only_engine(log: Path) -> EngineLog:
    engines = read_log(log).engines
    if len(engines) != 1:
        raise LogError(f"{log}: {len(engines)} engines in it, one was expected")
    return engines[0]


def judge(results: Mapping[str, Any], engine: EngineLog, spec: PolicySpec) -> dict[str, Any]:
    """Estimated and measured gains by repeat, and whether the geometric means agree within `WITHIN`."""
    shadow, on = (
        sorted(results["arms"][name]["runs"], key=lambda run: int(run["repeat"]))
        for name in (f"{spec.text}{SHADOW}", spec.text)
    )
    repeats = []
    for before, after in zip(shadow, on, strict=True):
        run = f"cmpl-r{before['repeat']}-{spec.text}{SHADOW}-"
        requests = [r for r in engine.requests if r.request_id.startswith(run)]
        replay = prepare(engine, requests, token_budget=TOKEN_BUDGET, lag=LAG_STEPS)
        step_time = _step_s(after) / _step_s(before)
        stock, policy, at_speed = (
            arm(served.latency_s, served.ttft_s)
            for served in (
                replay.serve(PolicySpec("fcfs")),
                replay.serve(spec),
                replay.serve(spec, step_time),
            )
        )
        repeats.append(
            {
                "estimated": gains(stock, policy),
                "estimated_at_speed": gains(stock, at_speed),
                "step_time": step_time,
                "measured": gains(before, after),
                "fidelity": stock["latency_s"]["mean"] / before["latency_s"]["mean"],
                "identical": after["outputs"] or before["outputs"],
                "requests": len(requests),
                "step_error": replay.error.mean_relative,
            }
        )
    document: dict[str, Any] = {"policy": spec.text, "load": results["load"]["text"], "repeats": repeats}
    document["step_time"] = _geometric([r["step_time"] for r in repeats])
    for what in _GAINS:
        document[what] = {q: _geometric([r[what][q] for r in repeats]) for q in _QUANTITIES}
    for what, ratio in (
        ("estimated", "estimate_over_measured"),
        ("estimated_at_speed", "estimate_at_speed_over_measured"),
    ):
        document[ratio] = {q: document[what][q] / document["measured"][q] for q in _QUANTITIES}
    document["within"] = abs(document["estimate_over_measured"]["mean_latency_s"] - 1) <= WITHIN
    return document


def _step_s(run: Mapping[str, Any]) -> float:
    return float(run["duration_s"]) / int(run["engine"]["steps"])


def _geometric(values: Sequence[float]) -> float:
    return math.exp(mean_interval([math.log(v) for v in values]).value)


def _show(console: Console, document: Mapping[str, Any]) -> None:
    rows = [
        [what.replace("_", " "), *(f"{document[what][q]:.3f}" for q in _QUANTITIES)]
        for what in (*_GAINS, "estimate_over_measured", "estimate_at_speed_over_measured")
    ]
    title = f"{document['policy']}: times lower than in the engine's own order"
    print_table(console, title, Table(["", "mean latency", "mean TTFT", "p99 latency"], rows))
    console.print(f"a step took {document['step_time']:.3f} times as long with the policy on")
    verdict = "within" if document["within"] else "NOT within"
    console.print(f"mean latency: {verdict} {WITHIN:.0%} of the measured gain")


if __name__ == "__main__":
    sys.exit(main())
