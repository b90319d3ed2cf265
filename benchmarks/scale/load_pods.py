"""What stands in for 2,000 pods: kubelets that mark them Running, and sidecars that report.

`python -m benchmarks.scale.load_pods FILE` is the sidecars, in a process of their own; FILE holds, in JSON,
for each workload the URL of Redis that its sidecars use, and its pods.
"""

import asyncio
import contextlib
import json
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2e_kit import Object, example_report
from redis import Redis
from redis.exceptions import AuthenticationError

from trail.wire.redis_schema import HISTORY_LENGTH, REPORT_SCRIPT, Keys, encode_report
from trail_operator.cluster_api.kube import Kube, KubeError, path

_POLL_S = 1.0
_AT_ONCE = 8
INTERVAL_S = 2.0


class Kubelet:
    """Marks pods of some namespaces Running, from a thread of its own, until there are `expected`."""

    def __init__(self, namespaces: list[str], expected: int) -> None:
        self.running: set[tuple[str, str]] = set()
        """Namespace and name."""
        self._namespaces = namespaces
        self._expected = expected
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(30)

    async def _run(self) -> None:
        kube = await Kube.connect()
        gate = asyncio.Semaphore(_AT_ONCE)
        try:
            while len(self.running) < self._expected and not self._end.is_set():
                with contextlib.suppress(KubeError, OSError, TimeoutError):
                    for namespace in self._namespaces:
                        await self._mark_all(kube, gate, namespace)
                await asyncio.sleep(_POLL_S)
        finally:
            await kube.close()

    async def _mark_all(self, kube: Kube, gate: asyncio.Semaphore, namespace: str) -> None:
        pending = [("fieldSelector", "status.phase=Pending")]
        found = await kube._call("GET", path("v1", "pods", namespace), query=pending)
        await asyncio.gather(*(self._mark(kube, gate, pod) for pod in found["items"]))

    async def _mark(self, kube: Kube, gate: asyncio.Semaphore, pod: Object) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        async with gate:
            await kube.patch(path("v1", "pods", namespace, name, "status"), {"status": up(pod)})
        self.running.add((namespace, name))


def up(pod: Object) -> Object:
    """The status of a pod whose containers run."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    states = [
        {"name": c["name"], "image": c["image"], "imageID": "test", "ready": True, "started": True,
         "restartCount": 0, "state": {"running": {"startedAt": now}}}
        for c in pod["spec"]["containers"]
    ]  # fmt: skip
    kinds = ("Initialized", "ContainersReady", "Ready", "PodScheduled")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds]
    return {"phase": "Running", "startTime": now, "containerStatuses": states, "conditions": conditions}


def report(client: Any, workload: str, pods: list[str]) -> None:
    """A report of each pod of a workload, by the sidecars' own script."""
    keys = Keys(workload)
    flat = [word for pair in encode_report(example_report(usage=0.8)).items() for word in pair]
    with client.pipeline(transaction=False) as pipe:
        for pod in pods:
            # Not by its digest: a pipeline would ask for rights that a sidecar does not have.
            pipe.eval(REPORT_SCRIPT, 3, keys.pod(pod), keys.pods, keys.history,
                      pod, 6000, HISTORY_LENGTH, *flat)  # fmt: skip
        pipe.execute()


def main(file: Path) -> None:
    """Reports for ever; workloads one after another, spread over the interval."""
    workloads: dict[str, dict[str, Any]] = json.loads(file.read_text())
    clients = {name: Redis.from_url(item["url"]) for name, item in workloads.items()}
    turn = 0
    began_s = time.monotonic()
    while True:
        for name, item in workloads.items():
            due_s = began_s + turn * INTERVAL_S / len(workloads)
            time.sleep(max(due_s - time.monotonic(), 0.0))
            turn += 1
            # Until the operator has let them in, they are refused.
            with contextlib.suppress(AuthenticationError):
                report(clients[name], name, item["pods"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
