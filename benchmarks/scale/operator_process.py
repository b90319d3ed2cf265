"""One operator as a process: the real loop and lease, a file for the API server; part of loop_check.

Prints one JSON object a line: every change of c, and every second how it stands.
"""

import argparse
import asyncio
import fcntl
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trail_operator.cluster_api.lease import Elector, LeaseConfig, LeaseConflictError
from trail_operator.control.loop import Change, ControlLoop, Target
from trail_operator.control.store import Store, connect


class FileLeases:
    """One Lease in a file that several processes share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, name: str) -> dict[str, Any] | None:
        with self._locked() as held:
            return held

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        with self._locked() as held:
            if held is not None:
                raise LeaseConflictError(lease["metadata"]["name"])
            return self._store(lease, 1)

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        with self._locked() as held:
            version = lease["metadata"]["resourceVersion"]
            if held is None or held["metadata"]["resourceVersion"] != version:
                raise LeaseConflictError(lease["metadata"]["name"])
            return self._store(lease, int(version) + 1)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any] | None]:
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield json.loads(self._path.read_text()) if self._path.exists() else None

    def _store(self, lease: dict[str, Any], version: int) -> dict[str, Any]:
        stored = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(version)}}
        self._path.write_text(json.dumps(stored))
        return stored


def say(**values: Any) -> None:
    print(json.dumps({"at_s": time.monotonic(), **values}), flush=True)


async def act(args: argparse.Namespace) -> None:
    async def on_change(change: Change) -> None:
        say(workload=change.workload, c=change.c, generation=change.generation, reason=change.reason)

    lease = LeaseConfig("trail", "trail-system", args.name, duration_s=6, deadline_s=4.0, renew_s=1.0)
    elector = Elector(FileLeases(args.lease), lease)
    store = Store(connect(args.url))
    loop = ControlLoop(store, is_leader=elector.is_leader, on_change=on_change, interval_s=args.interval)
    for workload in args.workloads:
        loop.set_target(workload, Target())
    stop = asyncio.Event()
    tasks = [asyncio.create_task(elector.run(stop)), asyncio.create_task(loop.run(stop))]
    while not any(task.done() for task in tasks):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        status = [loop.status(workload) for workload in args.workloads]
        say(
            leader=elector.is_leader(), degraded=loop.degraded,
            following=sum(s.following for s in status), pods=sum(s.pods for s in status),
            rejected=sorted({name for s in status for name in s.rejected}),
            cpu_s=usage.ru_utime + usage.ru_stime, rss_mib=usage.ru_maxrss / 1024,
        )  # fmt: skip
        await asyncio.sleep(1.0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lease", type=Path, required=True)
    parser.add_argument("--workloads", nargs="+", required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--skew", type=float, default=0.0)
    args = parser.parse_args()
    real = time.time
    time.time = lambda: real() + args.skew
    asyncio.run(act(args))
    return 1


if __name__ == "__main__":
    sys.exit(main())
