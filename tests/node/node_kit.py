"""A real Kubernetes node for tests: the one that `TRAIL_SHARED/tools/node` starts, with our images in it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Object = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HOME = Path(os.environ.get("TRAIL_NODE_HOME", Path.home() / ".cache" / "trail-node"))
SYSTEM, USERS = "trail-system", "llm"
BUILD = ROOT / "build/node"
PATIENCE_S = 120.0
VLLM_PATIENCE_S = 300.0
"""Three vLLM that start at once on two cores take their time."""
SIZES_MB = {"operator": 150, "engine": 5}


class CommandFailedError(AssertionError):
    """A command line ended as it should not have; the message holds what it said."""


def _as_the_tool_expects(tree: Path) -> None:
    """The tool finds the demo's model and predictor where they once were."""
    for name in ("images", "charts"):
        (tree / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "sidecar/trail/demo/data", tree / "sidecar/trail/lab/demo/data")


@dataclass
class Node:
    """The node, and the command line of somebody who uses it."""

    tools: Path
    said: list[str] = field(default_factory=list)
    """Command lines that were run as a user would."""

    @property
    def kubeconfig(self) -> Path:
        """Of the cluster's administrator."""
        return HOME / "run" / "kubeconfig"

    def start(self) -> None:
        """Starts it, building it first where that was never done."""
        run([sys.executable, self.tools / "node", "start"], show=True)

    def stop(self) -> None:
        """Ends it; nothing is left but what was built."""
        run([sys.executable, self.tools / "node", "stop"])

    def load_images(self, *roles: str) -> None:
        """Our images out of the Dockerfiles of this tree (of `roles`, or all), and what they stand beside."""
        images, environment = self.tools / "node-images", Path(sys.executable).parents[1]
        with tempfile.TemporaryDirectory() as made:
            _as_the_tool_expects(Path(made))
            run(["bash", images, made, environment, " "], show=True)  # the stand-ins alone, once
        run(["bash", images, ROOT, environment, *roles], show=True)

    def make_image(self, name: str, directory: Path, config: Object) -> None:
        """An image of one directory."""
        run([sys.executable, self.tools / "node", "image", name, directory, json.dumps(config)])

    def has_image(self, name: str) -> bool:
        """Whether the node holds an image."""
        return name in self.inside("ctr", "-n", "k8s.io", "images", "ls", "-q").stdout.split()

    def inside(self, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        """A command in the node's own network, mounts and processes."""
        return run([sys.executable, self.tools / "node", "exec", *words], **more)

    def shell(
        self, line: str, *, rc: int | None = 0, cwd: Path = ROOT, timeout_s: float = 600.0
    ) -> "subprocess.CompletedProcess[str]":
        """A line as a user types it, with `trail`, `helm` and `kubectl` at hand."""
        self.said.append(line)
        places = [str(Path(sys.executable).parent), os.environ["PATH"], str(HERE / "bin")]
        env = {
            **os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": ":".join(places), "COLUMNS": "160",
        }  # fmt: skip
        print(f"$ {line}", flush=True)
        began_s = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, check=False, env=env, cwd=cwd,
            timeout=timeout_s,
        )  # fmt: skip
        print(f"{done.stdout}{done.stderr}({time.monotonic() - began_s:.1f} s)", flush=True)
        if rc is not None and done.returncode != rc:
            raise CommandFailedError(f"{line}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *words]
        return run(command, input=stdin, check=check).stdout

    def get(self, *words: str) -> Object:
        """An object, or a list of them, as JSON."""
        found: Object = json.loads(self.kubectl("get", "-o", "json", *words))
        return found

    def find(self, kind: str, namespace: str, label: str = "") -> list[Object]:
        """All objects of a kind that are not about to go."""
        items = self.get(kind, "-n", namespace, *(["-l", label] if label else []))["items"]
        return [obj for obj in items if not obj["metadata"].get("deletionTimestamp")]

    def apply(self, *objects: Object) -> None:
        """Creates or changes objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def raw(self, namespace: str, pod: str, port: int, path: str) -> str:
        """What a pod answers on a port, through the API server."""
        return self.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}")

    def execute(self, pod: str, container: str, *words: str, namespace: str = USERS) -> str:
        """What a command in a container prints."""
        return self.kubectl("exec", "-n", namespace, pod, "-c", container, "--", *words)

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """A container's log."""
        return self.kubectl("logs", "-n", namespace, pod, "-c", container, check=False)

    def keep_logs(self, folder: Path) -> None:
        """Everything there is to say of all pods, into files."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "pods.txt").write_text(
            self.kubectl("get", "pods,deployments,trailpolicies,events", "-A", "-o", "wide", check=False)
        )
        for pod in json.loads(self.kubectl("get", "pods", "-A", "-o", "json", check=False) or "{}").get(
            "items", []
        ):
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            (folder / f"{namespace}.{name}.json").write_text(json.dumps(pod, indent=1))
            spec = pod["spec"]
            for container in [*spec.get("initContainers", ()), *spec["containers"]]:
                log = self.logs(namespace, name, container["name"])
                before = self.kubectl(
                    "logs", "--previous", "-n", namespace, name, "-c", container["name"], check=False
                )
                (folder / f"{namespace}.{name}.{container['name']}.log").write_text(
                    log + (f"\n--- before its last restart\n{before}" if before else "")
                )


def run(
    words: list[Any], *, check: bool = True, show: bool = False, **more: Any
) -> "subprocess.CompletedProcess[str]":
    """A program; fails with what it said."""
    if show:
        print(f"$ {shlex.join(map(str, words))}", flush=True)
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **more)
    if check and done.returncode:
        raise CommandFailedError(
            f"{shlex.join(map(str, words))[:400]}\nended with {done.returncode}:\n"
            f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def eventually(what: str, look: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """The first true result of `look`; fails naming what was awaited, and the last result."""
    end_s, last = time.monotonic() + seconds, None
    while time.monotonic() < end_s:
        try:
            last = look()
        except CommandFailedError as error:  # an API server or a kubelet that is away for a moment
            last = error  # type: ignore[assignment]
        else:
            if last:
                return last
        time.sleep(0.5)
    raise AssertionError(f"{what} did not come about within {seconds:.0f} s; last seen: {str(last)[:2000]}")


def need_program(name: str, package: str) -> None:
    """Installs a program that is not there, from Debian, where one may."""
    if shutil.which(name) is not None or shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-qq", "update"], env=env)
    run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", package], env=env)


def ready(pod: Object) -> bool:
    """Whether a pod serves."""
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def status_of(pod: Object) -> Object:
    """What the webhook says of a pod; empty where it has not spoken."""
    text = (pod["metadata"].get("annotations") or {}).get("trail.dev/status", "{}")
    found: Object = json.loads(text)
    return found


def metric(text: str, name: str, **labels: str) -> float | None:
    """The sum of a metric's samples that have `labels`; None where there is none."""
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items())
    ]
    return sum(values) if values else None
