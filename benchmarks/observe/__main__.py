"""`python -m benchmarks.observe`: the demo under load, observed; writes `observe.json` and `observe.html`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.observe.report import render
from benchmarks.observe.run import Plan, observe
from trail.policy.spec import parse_policy
from trail.report.page import write_results
from trail.serving.setup import SetupError
from trail.serving.stack import ServerError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every request was answered and traced whole, else 1; 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.observe",
        description="The demo under load, its traces and metrics received here and shown in a page.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("build/observe"), help="directory (%(default)s)")
    add("--policy", default="trail-c0.8", help="(%(default)s)")
    add("--requests", type=int, default=200, help="(%(default)s)")
    add("--rate", type=float, default=60.0, help="requests a second (%(default)s)")
    args = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False)
    if args.requests < 1 or not args.rate > 0:
        console.print("benchmarks.observe: --requests must be at least 1 and --rate positive")
        return 2
    try:
        parse_policy(args.policy)
        args.out.mkdir(parents=True, exist_ok=True)
        console.print("serving the demo under load")
        found = asyncio.run(observe(Plan(args.policy, args.requests, args.rate), args.out / "serve"))
    except (ValueError, OSError, ServerError, SetupError) as error:
        console.print(f"benchmarks.observe: {error}")
        return 2
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    write_results(found, args.out / "observe.json", args.out / "observe.html", render)
    console.print(
        f"{found['completed']} of {args.requests} requests answered, {found['whole_traces']} traces whole,"
        f" {found['lengths_agree']} lengths agree, {found['preemptions']} preemptions\n"
        f"written: {args.out / 'observe.html'}"
    )
    whole = found["completed"] == found["whole_traces"] == found["lengths_agree"] == args.requests
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
