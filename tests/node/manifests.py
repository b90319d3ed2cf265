"""What a user of the cluster has besides TRAIL: vLLM in several shapes, a collector, a Prometheus."""

import copy
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from node_kit import HERE, HOME, SYSTEM, USERS, Node, Object, run

WATCHED = "observe"
"""Namespace of collector and Prometheus."""
PROMETHEUS, ARCHIVE = "localhost/prometheus:1", "localhost/archive:1"
SIDECAR_IMAGE = "ghcr.io/trail-serving/trail-sidecar:0.1.0"

SCRAPE = f"""
global: {{scrape_interval: 3s}}
scrape_configs:
  # Debian builds it without Kubernetes' discovery: names of headless services stand in for it.
  - job_name: sidecars
    dns_sd_configs:
      - {{names: [metrics.{USERS}.svc.cluster.local], type: A, port: 9464, refresh_interval: 3s}}
  - job_name: operator
    static_configs: [{{targets: ["trail-operator.{SYSTEM}.svc.cluster.local:8080"]}}]
"""


def user_objects(tools: Path) -> dict[str, Object]:
    """The user's namespace, policy, service and Deployment, by kind."""
    text = (tools / "node-user.json").read_text().replace("@HOME@", str(HOME))
    return {obj["kind"]: obj for obj in json.loads(text)["items"]}


def variant(deployment: Object, name: str, **pod: Any) -> Object:
    """Another Deployment of the user's, switched on from the start, its pod's spec changed by `pod`."""
    out = copy.deepcopy(deployment)
    out["metadata"]["name"] = name
    out["metadata"]["annotations"] = {"trail.dev/inject": pod.pop("inject", "enabled")}
    out["spec"]["replicas"] = pod.pop("replicas", 1)
    out["spec"]["selector"]["matchLabels"] = out["spec"]["template"]["metadata"]["labels"] = {"app": name}
    vllm = out["spec"]["template"]["spec"]["containers"][0]
    vllm.update(pod.pop("container", {}))
    out["spec"]["template"]["spec"].update(pod)
    return out


def service(name: str) -> Object:
    """Of a variant."""
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": USERS},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 8000}]},
    }  # fmt: skip


def policy(name: str, **spec: Any) -> Object:
    """A TrailPolicy of the user's namespace."""
    return {
        "apiVersion": "trail.dev/v1alpha1", "kind": "TrailPolicy",
        "metadata": {"name": name, "namespace": USERS}, "spec": spec,
    }  # fmt: skip


def still(deployment: Object, name: str, inject: str) -> Object:
    """A workload that looks like vLLM and does nothing: its pods come and go within seconds."""
    container = copy.deepcopy(deployment["spec"]["template"]["spec"]["containers"][0])
    container = {key: container[key] for key in ("name", "image")}
    container["command"] = ["python3", "-c", "import time; time.sleep(1e9)", "vllm.entrypoints"]
    out = variant(deployment, name, inject=inject)
    out["spec"]["template"]["spec"] = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return out


def observers() -> list[Object]:
    """Collector and Prometheus."""
    config = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "observe", "namespace": WATCHED},
        "data": {"collector.py": (HERE / "collector.py").read_text(), "prometheus.yml": SCRAPE},
    }  # fmt: skip
    prometheus = ["/prometheus", "--config.file=/config/prometheus.yml", "--storage.tsdb.path=/data"]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WATCHED}},
        config,
        *_observer("collector", SIDECAR_IMAGE, ["python", "/config/collector.py"], 4317),
        *_observer("prometheus", PROMETHEUS, prometheus, 9090),
    ]


def sidecars_of(app: str) -> Object:
    """A headless service by which Prometheus finds the sidecars of a workload."""
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics", "namespace": USERS},
        "spec": {"clusterIP": "None", "selector": {"app": app}, "ports": [{"name": "metrics", "port": 9464}]},
    }  # fmt: skip


def _observer(name: str, image: str, command: list[str], port: int) -> list[Object]:
    """A Deployment of one pod with the configuration above, and its service."""
    volumes = [{"name": "config", "configMap": {"name": "observe"}}, {"name": "data", "emptyDir": {}}]
    mounts = [{"name": "config", "mountPath": "/config"}, {"name": "data", "mountPath": "/data"}]
    return _served(name, port, {"image": image, "command": command, "volumeMounts": mounts}, volumes)


def _served(name: str, port: int, container: Object, volumes: list[Object] | None = None) -> list[Object]:
    labels = {"app": name}
    probe = {"tcpSocket": {"port": port}, "periodSeconds": 2}
    whole = {"name": name, "imagePullPolicy": "IfNotPresent", "readinessProbe": probe, **container}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [whole], "volumes": volumes or []}}
    metadata = {"name": name, "namespace": WATCHED}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
         "spec": {"selector": {"matchLabels": labels}, "template": pod}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
         "spec": {"selector": labels, "ports": [{"port": port}]}},
    ]  # fmt: skip


def archive_server() -> list[Object]:
    """Where a predictor is fetched from by URL."""
    return _served("archive", 8080, {"image": ARCHIVE})


def make_prometheus(node: Node) -> None:
    """Debian's Prometheus with the libraries that it is linked to, as an image."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(["apt-get", "-qq", "-oAPT::Sandbox::User=root", "download", "prometheus"], cwd=place)
        (package,) = place.glob("*.deb")
        run(["dpkg", "-x", package, place / "unpacked"])
        root = place / "root"
        program = place / "unpacked/usr/bin/prometheus"
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for word in linked.split():
            if word.startswith("/"):
                target = root / word.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(Path(word).resolve().read_bytes())
                target.chmod(0o755)
        (root / "prometheus").write_bytes(program.read_bytes())
        (root / "prometheus").chmod(0o755)
        (root / "tmp").mkdir()
        node.make_image(PROMETHEUS, root, {"Entrypoint": ["/prometheus"]})


def make_archive(node: Node, predictor: Path) -> str:
    """An image that serves the predictor's tar archive; the archive's sha256."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(["tar", "-czf", place / "predictor.tar.gz", "-C", predictor, "."])
        digest = run(["sha256sum", place / "predictor.tar.gz"]).stdout.split()[0]
        box = run(["sh", "-c", "command -v busybox"]).stdout.strip()
        (place / "busybox").write_bytes(Path(box).read_bytes())
        (place / "busybox").chmod(0o755)
        node.make_image(ARCHIVE, place, {"Cmd": ["/busybox", "httpd", "-f", "-p", "8080", "-h", "/"]})
    return digest
