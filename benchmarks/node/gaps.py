"""What the sidecar takes from vLLM on a core that both share: gaps between tokens, on a real node.

    TRAIL_SHARED=... python benchmarks/node/gaps.py --out build/node/gaps.json

One core for all pods, the node's own processes and the client on another. vLLM serves a few streams (nobody
waits), then more than it has slots (somebody always waits): bare, with the sidecar, and while the sidecar is
killed and comes back; once without a CPU request of vLLM's own and once with one. Every figure is of the gaps
between the tokens of a stream, all streams together; `times` is over the bare pod's at the same load.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.names import ENV_NODE_CPUS, ENV_NODE_ROLES, ENV_SHARED

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/node"))

from manifests import service, user_objects, variant  # noqa: E402 - the tests' own kit
from node_kit import HERE, USERS, VLLM_PATIENCE_S, Node, Object, eventually, ready, status_of  # noqa: E402

PODS_CPU, OTHER_CPU = "0", "1"
SLOTS = 8
LOADS = {"few": 2, "many": 12}
REQUESTS = {"none": {}, "one core": {"requests": {"cpu": "1"}}}
KILLS_EVERY_S = 20.0
KILL = (
    "import os,pathlib,signal;"
    "[os.kill(int(p.parent.name),signal.SIGKILL) for p in pathlib.Path('/proc').glob('[0-9]*/cmdline')"
    " if b'sidecar' in p.read_bytes().split(b'\\0') and p.parent.name!='1']"
)


def figures(gaps: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(1e3 * gap for gap in gaps)
    named = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    points = {
        name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in named.items()
    }
    return {"gaps": len(gaps), "mean": statistics.fmean(ordered), **points, "max": ordered[-1]}


class Bench:
    """One node, one workload at a time."""

    def __init__(self, node: Node, seconds: float) -> None:
        self.node = node
        self.seconds = seconds

    def pod(self, *, injected: bool) -> Object:
        """The workload's pod, once it serves."""

        def look() -> list[Object]:
            found = self.node.find("pods", USERS, "app=demo")
            good = [p for p in found if ready(p) and bool(status_of(p).get("injected")) is injected]
            return good if len(good) == len(found) == 1 else []

        (found,) = eventually("the pod", look, 3 * VLLM_PATIENCE_S)
        return found

    def deploy(self, deployment: Object, *, injected: bool) -> Object:
        """Puts another shape in the place of what is there."""
        annotation = "enabled" if injected else "disabled"
        deployment["metadata"]["annotations"] = {"trail.dev/inject": annotation}
        self.node.kubectl("-n", USERS, "delete", "deployment", "demo", "--ignore-not-found")
        eventually("an empty place", lambda: not self.node.get("pods", "-n", USERS)["items"])
        self.node.apply(deployment)
        found = self.pod(injected=injected)
        self.measure(LOADS["many"], 10.0)
        return found

    def measure(self, together: int, seconds: float, victim: Object | None = None) -> dict[str, float]:
        """Gaps of `together` streams; the sidecar of `victim` is killed now and then meanwhile."""
        url = f"http://{self.node.get('service', 'demo', '-n', USERS)['spec']['clusterIP']}:8000"
        out = Path("/tmp") / f"trail-gaps-{os.getpid()}.json"  # noqa: S108 - seen from the node, too
        words = [
            *("taskset", "-c", OTHER_CPU, sys.executable, str(self.node.tools / "node"), "exec"),
            *(sys.executable, str(HERE / "client.py"), url, "--seconds", str(seconds)),
            *("--together", str(together), "--max-tokens", "100", "--out", str(out)),
        ]
        client = subprocess.Popen(words)
        next_s = time.monotonic() + 3.0
        while client.poll() is None:
            if victim is not None and time.monotonic() >= next_s:
                next_s += KILLS_EVERY_S
                self.node.execute(victim["metadata"]["name"], "trail-sidecar", "python", "-c", KILL)
            time.sleep(0.1)
        answers = json.loads(out.read_text())
        out.unlink()
        failed = [answer["error"] for answer in answers if answer["error"]]
        if failed:
            raise SystemExit(f"{len(failed)} of {len(answers)} requests failed: {failed[0]}")
        return figures([gap for answer in answers for gap in answer["gaps_s"]])

    def arms(self, user: dict[str, Object], resources: Object) -> dict[str, dict[str, float]]:
        """All arms of one shape."""
        base = user["Deployment"]
        container = base["spec"]["template"]["spec"]["containers"][0]
        shape = {"resources": resources, "args": [*container["args"], "--max-num-seqs", str(SLOTS)]}
        deployment = variant(base, "demo", container=shape)
        deployment["spec"]["strategy"] = {"type": "Recreate"}
        found: dict[str, dict[str, float]] = {}
        self.deploy(deployment, injected=False)
        for load, together in LOADS.items():
            found[f"bare, {load}"] = self.measure(together, self.seconds)
        pod = self.deploy(deployment, injected=True)
        time.sleep(30.0)
        for load, together in LOADS.items():
            found[f"sidecar, {load}"] = self.measure(together, self.seconds)
        for load, together in LOADS.items():
            found[f"sidecar killed, {load}"] = self.measure(together, self.seconds, pod)
        self.deploy(deployment, injected=False)
        for load, together in LOADS.items():
            found[f"bare again, {load}"] = self.measure(together, self.seconds)
        return found


def main() -> int:
    """0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/node/gaps.json")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each arm (%(default)s)")
    args = parser.parse_args()
    os.environ[ENV_NODE_CPUS] = PODS_CPU
    os.sched_setaffinity(0, {int(OTHER_CPU)})
    node = Node(Path(os.environ[ENV_SHARED]) / "tools")
    node.start()
    try:
        os.sched_setaffinity(0, {int(PODS_CPU), int(OTHER_CPU)})
        node.load_images(*os.environ.get(ENV_NODE_ROLES, "").split())
        os.sched_setaffinity(0, {int(OTHER_CPU)})
        for chart in ("trail-crds", "trail"):
            line = f"helm install {chart} charts/{chart} -n trail-system --create-namespace --wait"
            node.shell(line, timeout_s=900)
        user = user_objects(node.tools)
        node.apply(*(user[kind] for kind in ("Namespace", "TrailPolicy")), service("demo"))
        results: dict[str, Any] = {}
        for request, resources in REQUESTS.items():
            results[request] = Bench(node, args.seconds).arms(user, resources)
            show(request, results[request])
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1))
    finally:
        node.keep_logs(args.out.parent / "gaps-logs")
        node.stop()
    return 0


def show(request: str, arms: dict[str, dict[str, float]]) -> None:
    """The table of one shape."""
    print(f"\nvLLM's CPU request: {request}")
    print(f"{'arm':<24}{'gaps':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'times':>8}")
    for arm, found in arms.items():
        bare = arms[f"bare, {arm.split(', ')[1]}"]
        print(f"{arm:<24}{found['gaps']:>8}{found['p50']:>9.1f}{found['p99']:>9.1f}{found['max']:>9.0f}"
              f"{found['p99'] / bare['p99']:>8.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
