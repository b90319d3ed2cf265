"""`python -m benchmarks.peak`: `trail bench` for each model and load, results in `peak.json`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.names import ENV_SHARED
from benchmarks.peak import stories
from trail.serving.launch import run_to_end
from trail.wire.files import write_json

ARMS = "fcfs,trail-c0,trail-c0.2,trail-c0.8"
PEAK = "1.3x"
BELOW = ("0.7x", "0.9x", "1.0x")
BURST = "burst"
LOADS = (PEAK, *BELOW, BURST)


@dataclass(frozen=True)
class Setting:
    """One load of one model."""

    name: str
    options: tuple[str, ...]
    repeats: int


def settings(repeats: int, other_repeats: int) -> list[Setting]:
    """The peak first, then the loads at which less is to be gained, and a burst."""
    return [
        Setting(PEAK, ("--load", PEAK), repeats),
        *(Setting(load, ("--load", load), other_repeats) for load in BELOW),
        Setting(BURST, ("--arrivals", BURST), other_repeats),
    ]


def bench(model: list[str], setting: Setting, requests: int, out: Path) -> dict[str, Any]:
    """One `trail bench`. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "trail", "bench", *model, "--arms", ARMS, *setting.options]
    command += ["--requests", str(requests), "--repeats", str(setting.repeats), "--out", str(out)]
    run_to_end(command)
    found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


def summary(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per arm what the peak is judged by."""
    keys = (
        "latency_s",
        "ttft_s",
        "ratio_to_fcfs",
        "preemptions",
        "recomputed_tokens",
        "failed",
        "mismatched",
    )
    return {name: {k: arm[k] for k in keys if k in arm} for name, arm in results["arms"].items()}


def show(console: Console, name: str, collected: dict[str, dict[str, Any]]) -> None:
    """Stock's latency and TTFT divided by each arm's, at every load, with 95 % intervals."""
    table = Table(title=f"{name}: stock vLLM's mean divided by the arm's")
    for column in ("load", "arm", "latency", "TTFT", "p99 latency"):
        table.add_column(column, justify="left" if column in ("load", "arm") else "right")
    for load, results in collected.items():
        for arm, figures in results["arms"].items():
            speedup = figures["speedup"]
            if speedup is not None:
                cells = (
                    (speedup["latency_s"], "mean"),
                    (speedup["ttft_s"], "mean"),
                    (speedup["latency_s"], "p99"),
                )
                table.add_row(load, arm, *(_with_interval(of, statistic) for of, statistic in cells))
    console.print(table)


def _with_interval(speedup: dict[str, Any], statistic: str) -> str:
    bounds = speedup["ci95"][statistic]
    return f"{speedup[statistic]:.2f}x" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Everything; `peak.json` holds the demo model's peak in the shape of `trail bench`'s results."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peak",
        description="TRAIL against stock vLLM: a load peak, loads below it, a burst.",
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="directory (%(default)s)")
    parser.add_argument("--requests", type=int, default=600, help="requests of one run (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats at the peak (%(default)s)")
    parser.add_argument("--other-repeats", type=int, default=2, help="repeats elsewhere (%(default)s)")
    parser.add_argument("--loads", default=",".join(LOADS), help="of these, the peak always (%(default)s)")
    args = parser.parse_args(argv)
    wanted = args.loads.split(",")
    if unknown := [load for load in wanted if load not in LOADS]:
        parser.error(f"--loads {args.loads}: {unknown[0]} is none of {', '.join(LOADS)}")
    console = Console()
    models: dict[str, list[str]] = {"demo": ["demo", "--max-tokens", "640"]}
    shared = os.environ.get(ENV_SHARED)
    if shared:
        try:
            found = stories.prepare(Path(shared), args.out / stories.MODEL)
        except FileNotFoundError as error:
            parser.error(f"{ENV_SHARED}={shared} holds no {error.args[0]}")
        models[stories.MODEL] = [
            str(found.model), "--predictor", str(found.predictor), "--prompts", str(found.prompts),
            "--dtype", "float32", "--max-model-len", "512",
        ]  # fmt: skip
    else:
        console.print(f"{ENV_SHARED} is not set: {stories.MODEL} is left out")
    collected: dict[str, dict[str, dict[str, Any]]] = {}
    chosen = [s for s in settings(args.repeats, args.other_repeats) if s.name in (PEAK, *wanted)]
    for setting in chosen:
        for name, model in models.items():
            console.rule(f"{name} at {setting.name}")
            try:
                results = bench(model, setting, args.requests, args.out / f"peak-{name}-{setting.name}")
            except RuntimeError as error:
                console.print(str(error))
                return 1
            except KeyboardInterrupt:
                console.print("interrupted")
                return 130
            collected.setdefault(name, {})[setting.name] = results
            document = {
                **collected["demo"][PEAK],
                "models": {
                    model_name: {load: summary(r) for load, r in loads.items()}
                    for model_name, loads in collected.items()
                },
            }
            # After every part, so that a run cut short leaves what it found.
            write_json(args.out / "peak.json", document)
    for name, loads in collected.items():
        show(console, name, loads)
    console.print(f"written: {args.out / 'peak.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
