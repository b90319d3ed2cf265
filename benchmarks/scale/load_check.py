"""`python -m benchmarks.scale.load_check`: what the operator costs with 2,000 pods.

Writes build/operator-load.json. Needs an empty API server in KUBECONFIG, without nodes (`apiserver start`):
this script stands in for kubelets, so that little else works beside the operator. The charts' objects, the
operator with the chart's rights, a Redis of its own, and a report of every pod every two seconds. Latencies
are from the moment when a review was due, not from when the client came round to sending it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import helm_python
import psutil
import redis as redis_client
import yaml
from e2e_kit import (
    NAMESPACE,
    RELEASE,
    ROOT,
    Cluster,
    Object,
    Processes,
    account_kubeconfig,
    eventually,
    fill_redis_secret,
    free_port,
    operator_env,
    python,
    start_certificates,
)

from benchmarks.scale.load_pods import Kubelet
from trail.wire.files import write_json
from trail.wire.redis_schema import Keys
from trail_operator import names
from trail_operator.cluster_api.kube import path

PATIENCE_S = 600.0
RATES = (20, 100)
GOLDEN = ROOT / "tests/operator/golden"
SHAPES = ("plain-args", "production-stack", "kserve", "tensor-parallel")
HISTOGRAM = "apiserver_admission_webhook_admission_duration_seconds"


def deployment(namespace: str, name: str) -> Object:
    """An annotated Deployment that has no pods yet."""
    (pod,) = yaml.safe_load_all((GOLDEN / "plain-args.pod.yaml").read_text())
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": {names.INJECT: "enabled"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod["spec"]},
        },
    }


class Meter:
    """CPU and memory of a process."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def now(self) -> dict[str, float]:
        times, status = self._process.cpu_times(), Path(f"/proc/{self._process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        assert peak is not None
        return {
            "at_s": time.monotonic(),
            "cpu_s": times.user + times.system,
            "rss_mib": self._process.memory_info().rss / 2**20,
            "peak_rss_mib": int(peak[1]) / 1024,
        }

    def over(self, seconds: float) -> dict[str, float]:
        """Share of a core over some time, and memory at its end."""
        before = self.now()
        time.sleep(seconds)
        return since(before, self.now())


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What happened between two readings."""
    passed_s = after["at_s"] - before["at_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    return {
        "seconds": passed_s,
        "cpu_s": cpu_s,
        "cpu_share_of_a_core": cpu_s / passed_s,
        "rss_mib": after["rss_mib"],
        "peak_rss_mib": after["peak_rss_mib"],
    }


def quantile(values: list[float], q: float) -> float:
    """The value that a share `q` of `values` does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


async def latencies(url: str, authority: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Reviews of four pod shapes at random times, `rate` a second in the mean, whatever comes back when."""
    pods = [next(yaml.safe_load_all((GOLDEN / f"{shape}.pod.yaml").read_text())) for shape in SHAPES]
    reviews = []
    for pod in pods:
        pod["metadata"].setdefault("annotations", {})[names.INJECT] = "enabled"
        request = {"uid": "load", "operation": "CREATE", "namespace": "load-0", "object": pod, "dryRun": True}
        reviews.append(json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                                   "request": request}).encode())  # fmt: skip
    chance = random.Random(7)
    found: list[float] = []
    wrong = 0

    async def one(session: aiohttp.ClientSession, body: bytes, due_s: float) -> None:
        nonlocal wrong
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
            response = json.loads(await answer.read())["response"]
        found.append(time.perf_counter() - due_s)
        wrong += not (response["allowed"] and "patch" in response)

    context = ssl.create_default_context(cafile=authority)
    connector = aiohttp.TCPConnector(limit=16, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        due_s = time.perf_counter()
        end_s = due_s + seconds
        while (due_s := due_s + chance.expovariate(rate)) < end_s:
            await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
            group.create_task(one(session, chance.choice(reviews), due_s))
    return {
        "reviews": len(found),
        "a_second": rate,
        "without_patch": wrong,
        "mean_ms": 1e3 * statistics.fmean(found),
        **{f"p{100 * q:g}_ms": 1e3 * quantile(found, q) for q in (0.5, 0.95, 0.99, 0.999)},
        "max_ms": 1e3 * max(found),
    }


class Load:
    """The story, stage by stage."""

    def __init__(self, directory: Path, pods: int, workloads: int) -> None:
        self.directory, self.pods, self.count = directory, pods, workloads
        self.cluster = Cluster()
        self.processes = Processes(directory)
        self.port, self.redis_port = free_port(), free_port()
        self.namespaces = [f"load-{i}" for i in range(min(5, workloads))]
        self.workloads = [(self.namespaces[i % len(self.namespaces)], f"llm-{i}") for i in range(workloads)]
        self.helm = helm_python.Config(namespace=NAMESPACE)
        self.kubelet = Kubelet(self.namespaces, pods)
        self.found: dict[str, Any] = {"pods": pods, "workloads": workloads}

    # ---- stages -------------------------------------------------------------------------------------

    def run(self, idle_s: float, steady_s: float, latency_s: float) -> dict[str, Any]:
        found = self.found
        self.install()
        meter = self.start_operator("operator")
        found["idle"] = meter.over(idle_s)
        found["arrival"] = self.arrival(meter)
        self.report()
        eventually("a c for every workload", self.all_controlled, PATIENCE_S)
        found["steady"] = meter.over(steady_s)
        found["webhook"] = [self.latency(rate, latency_s) for rate in RATES]
        found["c_set"] = self.c_set()
        found["restart"] = self.restart()
        return found

    def install(self) -> None:
        self.helm.install(ROOT / "charts/trail-crds", f"{RELEASE}-crds", namespace=NAMESPACE,
                          create_namespace=True)  # fmt: skip
        resource = path(names.API_VERSION, names.PLURAL)
        eventually("the resource", lambda: self.cluster.get(resource) is not None)
        values = {"operator": {"replicas": 0}, "webhook": {"url": self.webhook_url}}
        self.helm.install(ROOT / "charts/trail", RELEASE, values, namespace=NAMESPACE)
        for namespace in self.namespaces:
            self.cluster.create(path("v1", "namespaces"), {"metadata": {"name": namespace}})
            predictor = {"layer": 11, "image": {"reference": "registry.example/p:1"}}
            policy = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "default"},
                      "spec": {"predictor": predictor}}  # fmt: skip
            self.cluster.create(path(names.API_VERSION, names.PLURAL, namespace), policy)
        self.account = account_kubeconfig(self.cluster, f"{RELEASE}-operator", self.directory / "kubeconfig")
        self.secret = fill_redis_secret(self.cluster, self.processes, self.account)
        self.processes.start("redis", self.secret.server(self.redis_port, self.directory), {})
        start_certificates(self.cluster, self.processes, self.account, self.directory)

    def start_operator(self, name: str) -> Meter:
        """Starts it and waits until the webhook answers."""
        env = operator_env(self.cluster, self.directory, self.account, self.port)
        env |= self.secret.operator_env(self.redis_port)
        self.processes.start(name, python("-m", "trail_operator"), env)
        eventually("the webhook", lambda: "the webhook answers" in self.processes.said(name), PATIENCE_S)
        return Meter(self.processes.running[name].pid)

    def arrival(self, meter: Meter) -> dict[str, Any]:
        """Annotated Deployments, then all of their pods at once."""
        before = meter.now()
        for namespace, name in self.workloads:
            self.cluster.create(path("apps/v1", "deployments", namespace), deployment(namespace, name))
        eventually("all stamps", self.all_stamped, PATIENCE_S)
        stamped_s = time.monotonic() - before["at_s"]
        self.kubelet.start()
        began, histogram = meter.now(), self.histogram()
        each = self.pods // self.count
        for namespace, name in self.workloads:
            where = path("apps/v1", "deployments", namespace, name)
            self.cluster.patch(where, {"spec": {"replicas": each}})
        eventually("all pods up and known", self.all_counted, PATIENCE_S)
        return {
            "stamped_after_s": stamped_s,
            **since(began, meter.now()),
            "pods_up_after_s": time.monotonic() - began["at_s"],
            "webhook_as_the_api_server_saw_it": self.seen_by_the_server(histogram),
        }

    def report(self) -> None:
        """Starts the sidecars of all pods."""
        found: dict[str, dict[str, Any]] = {}
        for namespace, pod in sorted(self.kubelet.running):
            workload = f"{namespace}/deployment/{pod.rsplit('-', 2)[0]}"
            url = self.secret.sidecar_url(workload, self.redis_port)
            found.setdefault(workload, {"url": url, "pods": []})["pods"].append(pod)
        file = self.directory / "pods.json"
        file.write_text(json.dumps(found))
        self.processes.start("sidecars", python("-m", "benchmarks.scale.load_pods", str(file)), {})

    def latency(self, rate: float, seconds: float) -> dict[str, Any]:
        return asyncio.run(latencies(self.webhook_url, self.directory / "ca.crt", rate, seconds))

    def c_set(self) -> dict[str, float]:
        """A c that the policies fix: how long until Redis has it for every workload."""
        began_s = time.monotonic()
        for namespace in self.namespaces:
            body = {"spec": {"c": {"mode": "Fixed", "value": 0.37}}}
            self.cluster.patch(path(names.API_VERSION, names.PLURAL, namespace, "default"), body)
        eventually("c of every workload", lambda: self.all_controlled(b"0.37"), PATIENCE_S)
        return {"followed_after_s": time.monotonic() - began_s}

    def restart(self) -> dict[str, Any]:
        """Killed, and started again with everything there."""
        self.processes.end("operator", signal.SIGKILL)
        began_s = time.monotonic()
        meter = self.start_operator("operator-again")
        answers_s = time.monotonic() - began_s
        cpu_s = meter.now()["cpu_s"]
        time.sleep(30.0)
        return {"webhook_answers_after_s": answers_s, "cpu_until_then_s": cpu_s, **meter.now()}

    # ---- what is seen -------------------------------------------------------------------------------

    @property
    def webhook_url(self) -> str:
        return f"https://127.0.0.1:{self.port}/inject"

    def all_stamped(self) -> bool:
        found = [obj for n in self.namespaces for obj in self.cluster.all(path("apps/v1", "deployments", n))]
        notes = [obj["spec"]["template"]["metadata"].get("annotations") or {} for obj in found]
        return sum(names.STAMPED_HASH in note for note in notes) == self.count

    def all_counted(self) -> bool:
        total = 0
        for namespace in self.namespaces:
            policy = self.cluster.get(path(names.API_VERSION, names.PLURAL, namespace, "default")) or {}
            total += ((policy.get("status") or {}).get("pods") or {}).get("injected", 0)
        return total >= self.pods and len(self.kubelet.running) >= self.pods

    def all_controlled(self, c: bytes | None = None) -> bool:
        redis = redis_client.Redis.from_url(self.secret.operator_url(self.redis_port))
        held = [redis.hget(Keys(f"{n}/deployment/{name}").c, "c") for n, name in self.workloads]
        return all(value == c if c is not None else value for value in held)

    def histogram(self) -> dict[str, float]:
        text = self.cluster.text("/metrics")
        lines = re.findall(rf"^{HISTOGRAM}_bucket{{(.*)}} ([0-9.e+]+)$", text, re.MULTILINE)
        out: dict[str, float] = {}
        for labels, count in lines:
            bound = re.search(r'le="([^"]+)"', labels)
            if 'name="inject.trail.dev"' in labels and bound:
                out[bound[1]] = out.get(bound[1], 0.0) + float(count)
        return out

    def seen_by_the_server(self, before: dict[str, float]) -> dict[str, Any]:
        after = self.histogram()
        counts = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
        total = counts.get("+Inf", 0.0)
        return {
            "reviews": total,
            **{f"within_{bound}_s": count / total for bound, count in counts.items() if bound != "+Inf"},
        }

    def stop(self) -> None:
        """Leaves no process behind. The API server is one to be thrown away."""
        self.kubelet.stop()
        self.processes.end_all()
        with contextlib.suppress(Exception):
            self.helm.close()
        self.cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build/operator-load.json")
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--workloads", type=int, default=50)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds without a pod")
    parser.add_argument("--steady", type=float, default=60.0, help="seconds with all of them")
    parser.add_argument("--latency", type=float, default=60.0, help="seconds of reviews at each rate")
    args = parser.parse_args()
    if not os.environ.get("KUBECONFIG"):
        sys.exit("KUBECONFIG is not set: this needs an empty API server without nodes")
    with tempfile.TemporaryDirectory() as directory:
        load = Load(Path(directory), args.pods, args.workloads)
        try:
            document = load.run(args.idle, args.steady, args.latency)
        except BaseException:
            for name in load.processes.running:
                print(f"--- {name}\n{load.processes.said(name)}", file=sys.stderr)
            raise
        finally:
            load.stop()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, document)
    print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
