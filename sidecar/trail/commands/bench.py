"""`trail bench`: options, progress, and where results go."""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trail.bench.arrivals import TraceError, read_trace
from trail.bench.config import BenchConfig, parse_arms, parse_arrivals, parse_load
from trail.bench.report.page import render
from trail.bench.report.tables import print_results
from trail.bench.results import ResultsError, read_results
from trail.bench.runner import Benchmark, elapsed_text
from trail.bench.workload import Prompt, PromptFileError, read_prompts
from trail.serving.control import ControlError
from trail.serving.setup import (
    DEMO_MODEL,
    ModelSource,
    SetupError,
    merge_args,
    option_value,
    require_vllm,
    resolve_model,
    resolve_predictor,
)
from trail.serving.stack import ServerError
from trail.wire.files import write_json, write_text

# Prompts are never split (the CPU engine refuses per-request seeds in a split prompt), and the server writes
# no line per request.
_VLLM_DEFAULTS = (
    "--max-num-seqs", "16", "--max-num-batched-tokens", "16384", "--uvicorn-log-level", "warning",
)  # fmt: skip
_INTERRUPTED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail bench`; whatever is not among them goes to vLLM untouched."""
    parser.usage = "trail bench MODEL [options] [vLLM arguments]"
    parser.description = (
        "Compare scheduling policies on identical requests, open loop, one arm after another. The arm fcfs is"
        " vLLM without TRAIL. Options that are not listed here are vLLM's own, for example --max-num-seqs 16."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="model directory, Hugging Face id, or 'demo'")
    add(
        "--arms",
        default="fcfs,trail-c0.8",
        help="fcfs, fcfs-reserve16, sjf, mlfq, trail-prompt, trail-cC, adaptive, oracle-cC (%(default)s)",
    )
    add(
        "--load",
        default="1.3x",
        help="1.3x: times the measured stock capacity; 25: requests/s; trace: its own clock",
    )
    add("--arrivals", default="poisson", help="poisson, burst, gamma:SCV, trace:FILE.csv (%(default)s)")
    add(
        "--prompts",
        default=DEMO_MODEL,
        help="JSON lines with prompt_token_ids or prompt, or 'demo' (%(default)s)",
    )
    add("--requests", type=int, default=600, help="requests of one run (%(default)s)")
    add("--repeats", type=int, default=3, help="repeats of every arm, each on its own requests (%(default)s)")
    add("--temperature", type=float, default=1.0, help="sampling temperature (%(default)s)")
    add("--max-tokens", type=int, default=512, help="limit of an answer (%(default)s)")
    add("--seed", type=int, default=0, help="seed of prompts, arrivals and sampling (%(default)s)")
    add("--predictor", type=Path, metavar="DIR", help="predictor trained for MODEL (demo: its own)")
    add("--capacity-requests", type=int, default=600, help="requests that measure the capacity (%(default)s)")
    add("--warmup-requests", type=int, default=32, help="requests after every engine start (%(default)s)")
    add("--stream-interval", type=int, default=16,
        help="tokens a streamed chunk; first and last come at once (%(default)s)")  # fmt: skip
    add(
        "--request-timeout", type=float, default=600.0, metavar="S", help="limit of one request (%(default)s)"
    )
    add(
        "--start-timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="limit of an engine start (%(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("build/bench"),
        help="directory of results.json and report.html (%(default)s)",
    )
    add("--report-only", type=Path, metavar="FILE", help="render report.html beside this results.json again")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark or render a report. Exit code 0, 1: server failed, 2: bad input, 130: interrupted."""
    console = Console()
    if args.report_only is not None:
        return _report_only(console, args.report_only)
    try:
        model = _model(args.model)
        config = _config(args, model)
        trail_arms = [a for a in config.arms if not a.stock]
        require_vllm(trail=bool(trail_arms))
        predictor = resolve_predictor(config.predictor, model) if trail_arms else None
        prompts = _prompts(config)
        if config.arrivals.trace is not None:
            read_trace(config.arrivals.trace, config.requests)
        config.out.mkdir(parents=True, exist_ok=True)
    except (SetupError, PromptFileError, TraceError, ValueError, OSError) as e:
        print(f"trail bench: {e}", file=sys.stderr)
        return 2
    results_file = config.out / "results.json"
    began_s = time.monotonic()
    with _Bars(console, config.repeats * len(config.arms)) as bars:
        benchmark = Benchmark(
            config,
            model,
            predictor,
            prompts,
            context_tokens=_context_tokens(model, config.vllm_args),
            progress=bars,
            on_run=lambda: write_json(results_file, benchmark.results()),
        )
        code, failure = asyncio.run(_until_signal(benchmark))
    results = benchmark.results()
    write_json(results_file, results)
    if results["arms"]:
        print_results(console, results)
        report = config.out / "report.html"
        write_text(report, render(results))
        console.print(
            f"report:  {report}\nresults: {results_file}\ntime:    {elapsed_text(began_s)}", highlight=False
        )
    if failure:
        print(f"trail bench: {failure}", file=sys.stderr)
    return code


async def _until_signal(benchmark: Benchmark) -> tuple[int, str]:
    task = asyncio.create_task(benchmark.run())
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not task.cancelling():  # a second signal must not interrupt the stopping of servers
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        return _INTERRUPTED, "interrupted; results hold the runs that were complete"
    except (ServerError, ControlError) as e:
        return 1, str(e)
    return 0, ""


def _report_only(console: Console, file: Path) -> int:
    try:
        results = read_results(file)
        report = file.with_name("report.html")
        write_text(report, render(results))
    except (ResultsError, OSError) as e:
        print(f"trail bench: {e}", file=sys.stderr)
        return 2
    print_results(console, results)
    console.print(f"report: {report}", highlight=False)
    return 0


def _model(name: str | None) -> ModelSource:
    if name is None:
        raise SetupError("name a MODEL first, for example: trail bench demo")
    return resolve_model(name)


def _config(args: argparse.Namespace, model: ModelSource) -> BenchConfig:
    interval = ("--stream-interval", str(args.stream_interval))
    return BenchConfig(
        model=args.model,
        predictor=args.predictor,
        arms=parse_arms(args.arms),
        load=parse_load(args.load),
        arrivals=parse_arrivals(args.arrivals),
        prompts=None if args.prompts == DEMO_MODEL else Path(args.prompts),
        requests=args.requests,
        repeats=args.repeats,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        seed=args.seed,
        capacity_requests=args.capacity_requests,
        warmup_requests=args.warmup_requests,
        stream_interval=args.stream_interval,
        request_timeout_s=args.request_timeout,
        start_timeout_s=args.start_timeout,
        vllm_args=tuple(merge_args((*model.default_args, *_VLLM_DEFAULTS, *interval), args.vllm_args)),
        out=args.out,
    )


def _prompts(config: BenchConfig) -> Sequence[Prompt]:
    if config.prompts is not None:
        return read_prompts(config.prompts)
    if config.model != DEMO_MODEL:
        raise SetupError("--prompts demo are the demo model's; give --prompts FILE.jsonl for another model")
    from trail.demo.corpus import demo_prompts

    wanted = max(config.requests * config.repeats, config.capacity_requests)
    return [Prompt(tuple(p.token_ids), None) for p in demo_prompts(wanted, config.seed)]


def _context_tokens(model: ModelSource, vllm_args: Sequence[str]) -> int | None:
    given = option_value(vllm_args, "--max-model-len")
    if given is not None and given.isdigit():
        return int(given)
    if model.directory is None:
        return None
    content = json.loads((model.directory / "config.json").read_text(encoding="utf-8"))
    value = content.get("max_position_embeddings")
    return value if isinstance(value, int) else None


class _Bars:
    """Progress on the terminal: all runs, and the requests of the present one."""

    def __init__(self, console: Console, runs: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=2,  # drawing must not compete with the load generator
        )
        self._all = self._progress.add_task("runs", total=runs)
        self._now = self._progress.add_task("preparing", total=None)

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()

    def phase(self, text: str, total: int) -> None:
        self._progress.reset(self._now, description=text, total=total or None)
        if not self._progress.console.is_terminal:
            self._progress.console.print(text, highlight=False)

    def advance(self, done: int) -> None:
        self._progress.update(self._now, completed=done)

    def run_done(self) -> None:
        self._progress.advance(self._all)
