"""`trail simulate`: options, progress, and where results go."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from trail.bench.config import Arm, Arrivals, Load, parse_arms, parse_arrivals, parse_load
from trail.bench.report.tables import print_results
from trail.simulation.assemble import load_results, load_summary
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.steptime import PRESET_KV_TOKENS, PRESETS, read_step_model
from trail.simulation.engine.workload import RECORDED, Source
from trail.simulation.files import read_source
from trail.simulation.predictor_files import parse_predictor
from trail.simulation.report import render
from trail.simulation.sweep import Setting, jobs, run_jobs
from trail.wire.files import write_json, write_text

_INTERRUPTED = 130
_DRAWN_REQUESTS = 10_000
_LEAST = {
    "requests": 1,
    "every": 1,
    "prompt_tokens": 1,
    "jobs": 1,
    "seeds": 1,
    "seed": 0,
    "keep_requests": 0,
    "kv_tokens": 0,
    "block_size": 1,
    "prediction_lag": 0,
    "initial_lag": 0,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail simulate`."""
    parser.usage = "trail simulate WORKLOAD [options]"
    parser.description = (
        "Serve a workload with a simulated vLLM engine under several policies, at several loads. The arm fcfs"
        " is vLLM without TRAIL; the policies are the very functions that the sidecar and the scheduler run."
        " Results depend on nothing but options and seeds. Interrupted, the same command goes on where it"
        " stopped."
    )
    # fmt: off
    workload = parser.add_argument_group("workload")
    add = workload.add_argument
    add("workload", metavar="WORKLOAD", type=Path,
        help="a trace (CSV as Azure's: arrival_s,input_tokens,output_tokens; JSON lines as Mooncake's), a CSV"
        " of lengths (CASTILLO's, or a column of output tokens), or results.json of trail bench; .gz allowed")
    add("--arrivals",
        help="trace (recorded, where the workload holds arrivals: its default), poisson (that of lengths),"
        " gamma:SCV (squared CV of gaps), burst (all at once), or trace:FILE.csv")
    add("--load", default="0.9x",
        help="comma-separated: 0.9x (times the capacity of simulated stock FCFS when all requests are there"
        " at once), 25 (requests/s), or trace (its own clock) (%(default)s)")
    add("--requests", type=int, help="requests of one run (a trace: all of it; lengths: 10000)")
    add("--prompt-tokens", type=int, default=256, metavar="N",
        help="prompt of lengths that come without one (%(default)s)")
    add("--lengths-column", metavar="NAME", help="the column of a CSV of lengths")
    policies = parser.add_argument_group("policies")
    add = policies.add_argument
    add("--arms", default="fcfs,sjf,trail-c0,trail-c0.8,adaptive,oracle-c0",
        help="as in trail bench, for example fcfs,fcfs-reserve16,trail-c0.2,mlfq,adaptive-k2 (%(default)s)")
    add("--c", metavar="C,...", help="run every arm that has a c and names none at each of these values")
    add("--predictor", default="lognormal:0.6,0.4,0.9", metavar="WHICH",
        help="exact; lognormal:SIGMA_INITIAL,SIGMA,CORRELATION; confusion:FILE.json (measured matrices);"
        " recorded:FILE.npz (predictions along real answers) (%(default)s)")
    add("--every", type=int, default=10, metavar="K", help="tokens between two predictions (%(default)s)")
    engine = parser.add_argument_group("engine")
    add = engine.add_argument
    add("--steps", default="h200-8b", metavar="MODEL",
        help=f"step times: {', '.join(PRESETS)}, or a file of trail fit-steps (%(default)s)")
    add("--slots", type=int, default=256, metavar="N", help="max_num_seqs (%(default)s)")
    add("--token-budget", type=int, default=8192, metavar="N", help="max_num_batched_tokens (%(default)s)")
    add("--kv-tokens", type=int, metavar="N",
        help="tokens that fit in the KV cache, 0: no limit (default: what the preset's GPU holds, no limit"
        " for a fitted model)")
    add("--block-size", type=int, default=16, metavar="N", help="tokens of a KV block (%(default)s)")
    add("--no-prefix-cache", action="store_true", help="a preempted request leaves nothing in the cache")
    add("--no-chunked-prefill", action="store_true", help="a prompt is computed in one step or waits")
    add("--async-scheduling", action="store_true", help="a step is put together while the one before runs")
    add("--prediction-lag", type=int, default=0, metavar="STEPS",
        help="steps until the board shows a prediction made from a step (%(default)s)")
    add("--initial-lag", type=int, default=0, metavar="STEPS",
        help="steps until the board shows what is predicted of a new request (%(default)s)")
    runs = parser.add_argument_group("runs")
    add = runs.add_argument
    add("--seeds", type=int, default=5, metavar="N",
        help="repeats of every arm, each on its own requests (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="the first seed (%(default)s)")
    add("--jobs", type=int, metavar="N", help="processes (default: one a core)")
    add("--keep-requests", type=int, default=2000, metavar="N",
        help="requests of every run that results.json lists, evenly spread (%(default)s)")
    add("--out", type=Path, default=Path("build/simulate"), metavar="DIR",
        help="directory of results.json and report.html (%(default)s)")
    # fmt: on


def run(args: argparse.Namespace) -> int:
    """Simulate and report. Exit code 0, 2: bad input, 130: interrupted."""
    console = Console()
    try:
        return _sweep(console, args, _setting(args), _arms(args), _loads(args.load))
    except (ValueError, OSError) as e:
        print(f"trail simulate: {e}", file=sys.stderr)
        return 2


def _setting(args: argparse.Namespace) -> Setting:
    source = read_source(args.workload, prompt_tokens=args.prompt_tokens, lengths_column=args.lengths_column)
    for name, least in _LEAST.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    return Setting(
        source=source,
        arrivals=_arrivals(args.arrivals, source),
        engine=EngineConfig(
            slots=args.slots,
            token_budget=args.token_budget,
            kv_blocks=_kv_blocks(args),
            block_tokens=args.block_size,
            prefix_cache=not args.no_prefix_cache,
            chunked_prefill=not args.no_chunked_prefill,
            async_scheduling=args.async_scheduling,
            prediction_lag=args.prediction_lag,
            initial_lag=args.initial_lag,
        ),
        model=read_step_model(args.steps),
        predictor=parse_predictor(args.predictor),
        every=args.every,
        requests=args.requests or (None if source.recorded else _DRAWN_REQUESTS),
        keep=args.keep_requests,
    )


def _kv_blocks(args: argparse.Namespace) -> int | None:
    tokens = PRESET_KV_TOKENS.get(args.steps) if args.kv_tokens is None else args.kv_tokens
    return tokens // args.block_size if tokens else None


def _arrivals(text: str | None, source: Source) -> Arrivals:
    if text is None:
        return RECORDED if source.recorded else Arrivals("poisson")
    if text == "trace":
        if source.recorded is None:
            raise ValueError(
                f"{source.name} holds no arrivals: write poisson, gamma:8, burst or trace:FILE.csv"
            )
        return RECORDED
    return parse_arrivals(text)


def _arms(args: argparse.Namespace) -> tuple[Arm, ...]:
    if args.c is None:
        return parse_arms(args.arms)
    values = [part.strip() for part in args.c.split(",") if part.strip()]
    names: list[str] = []
    for arm in parse_arms(args.arms):
        own = any(part.startswith("c") for part in arm.name.removeprefix(arm.policy.name).split("-"))
        names += [arm.name] if own or not arm.policy.cuts_off else [f"{arm.name}-c{c}" for c in values]
    return parse_arms(",".join(dict.fromkeys(names)))


def _loads(text: str) -> list[Load]:
    loads = [parse_load(part.strip()) for part in text.split(",") if part.strip()]
    if not loads:
        raise ValueError("--load names no load; for example: --load 0.9x,1.05x")
    return loads


def _sweep(
    console: Console, args: argparse.Namespace, setting: Setting, arms: Sequence[Arm], loads: Sequence[Load]
) -> int:
    began_s, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    seeds = list(range(args.seed, args.seed + args.seeds))
    capacity = None
    if setting.arrivals.kind != "burst" and any(load.times_capacity for load in loads):
        capacity = setting.capacity()
        console.print(f"capacity of stock FCFS: {capacity.requests_per_s:.3f} requests/s", highlight=False)
    todo = jobs(arms, loads, seeds, capacity)
    records: dict[Load, list[dict[str, Any]]] = {load: [] for load in loads}
    code = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        bar = bars.add_task("simulations", total=len(todo))
        try:
            for job, record in run_jobs(setting, todo, directory=args.out / "runs", processes=args.jobs):
                records[job.load].append(record)
                bars.advance(bar)
        except KeyboardInterrupt:
            code = _INTERRUPTED
    shown = [load for load in loads if records[load]]
    if not shown:
        print("trail simulate: interrupted before the first run was complete", file=sys.stderr)
        return code
    main = shown[-1]
    results = load_results(
        setting,
        arms,
        main,
        next(job.rate_per_s for job in todo if job.load == main),
        records[main],
        capacity=capacity,
        seeds=seeds,
        complete=code == 0,
        started_at=started,
        seconds=time.monotonic() - began_s,
    )
    results["sweep"] = [load_summary(load, arms, records[load]) for load in shown]
    report = args.out / "report.html"
    write_json(args.out / "results.json", results)
    write_text(report, render(results))
    print_results(console, results)
    console.print(f"report:  {report}\nresults: {args.out / 'results.json'}", highlight=False)
    if code:
        print("trail simulate: interrupted; the same command goes on from here", file=sys.stderr)
    return code
