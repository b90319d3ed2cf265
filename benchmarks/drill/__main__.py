"""`python -m benchmarks.drill`: faults on the demo model under load, written to `drill.json`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.drill.waves import Drill, Wave, told
from benchmarks.stack import stack_of
from trail.bench import arrivals
from trail.bench.workload import BenchRequest, Prompt, build_requests, repeat_rng
from trail.serving.control import ControlError
from trail.serving.setup import DEMO_MODEL, SetupError
from trail.serving.stack import ServerError, Stack
from trail.wire.files import write_json

_MAX_TOKENS = 640
_START_LIMIT_S = 240.0
_POLICY = "trail-c0.2"
_VLLM = ("--max-num-seqs", "16", "--max-num-batched-tokens", "16384", "--block-size", "32")
_TEND_S = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every request of every wave was answered, and answered the same; else 1."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.drill",
        description="The demo model saturated under TRAIL; then its sidecar is killed, and hangs.",
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="directory (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="saturated without a fault (%(default)s)")
    parser.add_argument("--requests", type=int, default=600, help="of a wave (%(default)s)")
    parser.add_argument("--faults", type=int, default=2, help="waves with each fault (%(default)s)")
    args = parser.parse_args(argv)
    console = Console(stderr=True)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        waves = asyncio.run(_drill(args, console))
    except (ServerError, ControlError, SetupError) as error:
        console.print(f"benchmarks.drill: {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    document = {"requests": args.requests, "waves": [told(wave, waves[0]) for wave in waves]}
    document["steady"] = _steady(document["waves"])
    write_json(args.out / "drill.json", document)
    _show(console, document)
    console.print(f"written: {args.out / 'drill.json'}", highlight=False)
    whole = all(w["identical"] == w["requests"] for w in document["waves"])
    return 0 if whole else 1


async def _drill(args: argparse.Namespace, console: Console) -> list[Wave]:
    stack = stack_of(DEMO_MODEL, _VLLM, _POLICY, args.out / "drill")
    tending = None
    try:
        console.print("starting the demo model and its sidecar")
        stack.start()
        await asyncio.to_thread(stack.until_ready, _START_LIMIT_S)
        tending = asyncio.create_task(_tend(stack))
        drill = Drill(stack, _requests(args.requests), model=DEMO_MODEL, temperature=1.0)
        waves: list[Wave] = []
        began_s = time.monotonic()
        while not waves or time.monotonic() - began_s < 60 * args.minutes:
            console.print(f"steady, {(time.monotonic() - began_s) / 60:.1f} min", highlight=False)
            waves.append(await drill.steady())
        for fault in (drill.kill, drill.hang):
            for _ in range(args.faults):
                console.print(fault.__name__)
                waves.append(await fault())
        return waves
    finally:
        if tending is not None:
            tending.cancel()
        await asyncio.to_thread(stack.stop)


async def _tend(stack: Stack) -> None:
    """Have a killed sidecar started again, as `trail serve` does."""
    while stack.tend() is None:
        await asyncio.sleep(_TEND_S)


def _requests(n: int) -> list[BenchRequest]:
    from trail.demo.corpus import demo_prompts

    prompts = [Prompt(tuple(p.token_ids), None) for p in demo_prompts(n, 0)]
    return build_requests(prompts, arrivals.burst(n), [_MAX_TOKENS] * n, repeat_rng(0, 0))


def _steady(waves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    steady = [w for w in waves if w["kind"] == "steady"]
    return {
        "seconds": sum(w["seconds"] for w in steady),
        "steps": sum(w["steps"] for w in steady),
        "fallback_steps": sum(w["fallback_steps"] for w in steady),
        "longest_silence_s": max(w["longest_silence_s"] for w in steady),
    }


def _show(console: Console, document: dict[str, Any]) -> None:
    table = Table(title="what became of every wave")
    columns = ("kind", "completed", "identical", "tokens_per_s", "longest_silence_s", "steps",
               "fallback_steps", "back_after_s")  # fmt: skip
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "kind" else "right")
    for wave in document["waves"]:
        table.add_row(*(_cell(wave.get(column)) for column in columns))
    console.print(table)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
