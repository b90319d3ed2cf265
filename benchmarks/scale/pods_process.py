"""A process of simulated pods whose wall clock is wrong; part of loop_check.

SIGUSR1 changes the load of all its workloads, to expensive recomputation and back. On SIGTERM it writes what
its pods were told, and when (CLOCK_MONOTONIC), to a file.
"""

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path

from loop_kit import Plant, Pod

CHEAP, EXPENSIVE = 0.001, 0.5


class LoggedPod(Pod):
    """A pod that remembers when it was told what."""

    def __init__(self, *args: object, **more: object) -> None:
        self.log: list[tuple[float, float, int]] = []
        super().__init__(*args, **more)  # type: ignore[arg-type]

    def _apply(self, record: object) -> None:
        super()._apply(record)  # type: ignore[arg-type]
        self.log.append((time.monotonic(), record.c, record.generation))  # type: ignore[attr-defined]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--workloads", nargs="+", required=True)
    parser.add_argument("--pods", type=int, required=True, help="of each workload")
    parser.add_argument("--liar", default="", help="workload with one pod more, whose numbers are untrue")
    parser.add_argument("--skew", type=float, required=True, help="seconds by which the wall clock is wrong")
    parser.add_argument("--kind", required=True, help="names of pods begin with this")
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--log", type=Path, required=True)
    args = parser.parse_args()
    real = time.time
    time.time = lambda: real() + args.skew
    plants = {workload: Plant(CHEAP) for workload in args.workloads}
    pods = [
        LoggedPod(args.url, workload, f"{args.kind}-{i}", plant, interval_s=args.interval)
        for workload, plant in plants.items()
        for i in range(args.pods)
    ]
    liar = Pod(args.url, args.liar, "liar", Plant(1e3, 1e5), interval_s=args.interval) if args.liar else None

    def step(*_: object) -> None:
        for plant in plants.values():
            plant.cost = EXPENSIVE if plant.cost == CHEAP else CHEAP

    end = threading.Event()
    signal.signal(signal.SIGUSR1, step)
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    print("ready", flush=True)
    while not end.wait(0.2):
        pass
    for pod in [*pods, *([liar] if liar else [])]:
        pod.link._stop.set()
    args.log.write_text(json.dumps([pod.log for pod in pods]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
