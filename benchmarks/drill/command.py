"""Runs the drill on the demo model and writes `drill.json`."""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks.drill.served import Served, ServedError
from benchmarks.drill.waves import Drill, Wave, told
from trail.bench import arrivals
from trail.bench.control import ControlError
from trail.bench.workload import BenchRequest, Prompt, build_requests, repeat_rng
from trail.serving.setup import DEMO_MODEL
from trail.wire.files import write_json

_MAX_TOKENS = 640
_START_LIMIT_S = 240.0
_SERVE = ("--policy", "trail-c0.2", "--max-num-seqs", "16", "--max-num-batched-tokens", "16384",
          "--block-size", "32")  # fmt: skip


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
    log = args.out / "drill.log"
    log.unlink(missing_ok=True)
    try:
        waves = asyncio.run(_drill(args, log, console))
    except (ServedError, ControlError) as error:
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


async def _drill(args: argparse.Namespace, log: Path, console: Console) -> list[Wave]:
    served = Served([DEMO_MODEL, *_SERVE], log)
    try:
        async with aiohttp.ClientSession() as http:
            console.print("starting trail serve demo")
            await served.until_healthy(http, _START_LIMIT_S)
        drill = Drill(served, _requests(args.requests), model=DEMO_MODEL, temperature=1.0)
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
        await asyncio.to_thread(served.stop)


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
