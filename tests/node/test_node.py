"""On a real node: install, annotate, and vLLM runs under TRAIL whatever fails around it; then all goes again.

One story, in order. Images are built from the Dockerfiles of this tree, charts have their default values, and
what a user would type is typed. `build/node/failed` holds the log of every container where a step fails.
"""

import contextlib
import json
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from manifests import (
    PROMETHEUS,
    WATCHED,
    archive_server,
    make_archive,
    make_prometheus,
    observers,
    policy,
    service,
    sidecars_of,
    still,
    user_objects,
    variant,
)
from node_kit import (
    BUILD,
    HERE,
    HOME,
    ROOT,
    SIZES_MB,
    SYSTEM,
    USERS,
    VLLM_PATIENCE_S,
    Node,
    Object,
    eventually,
    metric,
    ready,
    status_of,
)

from trail_operator.admission.resources import cpu_request, quantity

PREDICTOR = ROOT / "sidecar/trail/demo/data/predictor"
SIDECAR = "trail-sidecar"
POLICY = ("trailpolicy", "default", "-n", USERS)
COLLECTOR = f"http://collector.{WATCHED}.svc:4317"
# A first start builds the node and every image.
pytestmark = [pytest.mark.usefixtures("node"), pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def user(node: Node) -> dict[str, Object]:
    """The user's objects, by kind; the policy names a collector and traces everything."""
    objects = user_objects(node.tools)
    telemetry = {"otlpEndpoint": COLLECTOR, "sampleRatio": 1, "decisionLogMiB": 8}
    # A client that asks the same six things all the time proves predictions wrong; nothing shall follow.
    objects["TrailPolicy"]["spec"] |= {"telemetry": telemetry, "quality": "Watch"}
    # Few places, so that requests queue.
    objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"] += ["--max-num-seqs", "8"]
    return objects


def pods(node: Node, app: str = "demo") -> list[Object]:
    return node.find("pods", USERS, f"app={app}")


def serving(node: Node, app: str = "demo", *, count: int = 1, injected: bool) -> list[Object]:
    """The pods of a workload where all are ready and as they should be, else none."""
    found = pods(node, app)
    good = [p for p in found if ready(p) and bool(status_of(p).get("injected")) is injected]
    return good if len(good) == len(found) == count else []


def nothing_of_ours(pod: Object) -> bool:
    """Whether a pod is as if TRAIL did not exist."""
    text = json.dumps([pod["spec"], pod["metadata"].get("annotations"), pod["metadata"]["labels"]])
    return "trail" not in text.replace(str(HOME), "").lower()


def name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def address(node: Node, app: str = "demo", namespace: str = USERS, port: int = 8000) -> str:
    """Of a service, as the node and every pod reach it."""
    return f"http://{node.get('service', app, '-n', namespace)['spec']['clusterIP']}:{port}"


def client(node: Node, *options: str, app: str = "demo") -> list[dict[str, Any]]:
    """What a client's requests met. Fails where one was not answered."""
    done = node.inside(sys.executable, str(HERE / "client.py"), address(node, app), *options, check=False)
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == 0, [a["error"] for a in answers if a["error"]]
    assert answers
    return answers


def sidecar_metrics(node: Node, pod: Object) -> str:
    return node.raw(USERS, name(pod), 9464, "metrics")


@contextlib.contextmanager
def load(node: Node, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Requests all the time while the block runs; afterwards the list holds what became of them."""
    out, until = folder / "answers.json", folder / "until"
    words = [sys.executable, str(node.tools / "node"), "exec", sys.executable, str(HERE / "client.py"),
             address(node), "--seconds", "900", "--together", "4", "--pause", "0.2",
             "--out", str(out), "--until", str(until)]  # fmt: skip
    answers: list[dict[str, Any]] = []
    process = subprocess.Popen(words)
    try:
        yield answers
    finally:
        until.touch()
        process.wait(180)
        if out.exists():
            answers += json.loads(out.read_text())


# ---- from nothing to a pod that serves under TRAIL ----------------------------------------------


def test_images_are_as_small_as_they_are_said_to_be(node: Node) -> None:
    """Operator and engine within their limits, the sidecar without CUDA."""
    rows = node.inside("ctr", "-n", "k8s.io", "images", "ls").stdout.splitlines()
    base = layer_sizes(rows, "docker.io/library/busybox")
    for role, most in SIZES_MB.items():
        size = layer_sizes(rows, f"trail-{role}:") - (base if role == "engine" else 0)
        print(f"{role}: {size:.1f} MB as it is sent")
        assert size <= most
    (sidecar,) = [row.split()[0] for row in rows if "trail-sidecar:" in row]
    files = node.inside("sh", "-c", LIST_FILES, "list", sidecar).stdout
    assert "libtorch_cpu.so" in files
    assert not re.search(r"/(libcud|libnv|libtorch_cuda)[^/]*$", files, re.MULTILINE)


LIST_FILES = """
place=$(mktemp -d)
ctr -n k8s.io images mount "$1" "$place" > /dev/null
find "$place" -name '*.so*'
ctr -n k8s.io images unmount --rm "$place" > /dev/null
"""


def layer_sizes(rows: list[str], image: str) -> float:
    """Megabytes of an image as a registry would send it."""
    (row,) = [row for row in rows if image in row and "sha256:" not in row.split()[0]]
    found = re.search(r"([0-9.]+) (KiB|MiB|GiB)", row)
    assert found is not None
    return float(found[1]) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[found[2]] / 1e6


def test_the_charts_install_with_their_defaults_and_pass_helms_test(
    node: Node, user: dict[str, Object]
) -> None:
    """The operator is ready only once it hears of the cluster; `helm test` asks it from inside.

    The user's vLLM starts meanwhile, which takes as long.
    """
    node.apply(*(user[kind] for kind in ("Namespace", "Service", "Deployment")), sidecars_of("demo"))
    for line in readme()[:2]:
        node.shell(line)
    (operator,) = eventually("the operator", lambda: [
        p for p in node.find("pods", SYSTEM) if "operator" in name(p) and ready(p)])  # fmt: skip
    assert all(s["restartCount"] == 0 for s in operator["status"]["containerStatuses"])
    said = node.raw(SYSTEM, name(operator), 8080, "readyz")
    assert "[+] watches" in said
    assert metric(node.raw(SYSTEM, name(operator), 8080, "metrics"), "trail_operator_watches_up") == 1
    node.shell("helm test trail -n trail-system")
    assert "1 of 1 replicas ready" in node.shell("trail status -A").stdout


def test_what_watches_it_is_there(node: Node) -> None:
    """A collector in the sidecar's own image, and Debian's Prometheus."""
    if not node.has_image(PROMETHEUS):
        make_prometheus(node)
    node.apply(*observers())
    for app in ("collector", "prometheus"):
        eventually(app, lambda app=app: all(map(ready, node.find("pods", WATCHED, f"app={app}")))
                   and node.find("pods", WATCHED, f"app={app}"))  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """What stock vLLM answers, by prompt."""
    return {}


def test_the_users_vllm_serves_before_anything_is_annotated(node: Node, texts: dict[str, str]) -> None:
    """Nothing of ours is in a pod that nobody has switched on."""
    (pod,) = eventually("vLLM", lambda: serving(node, injected=False), VLLM_PATIENCE_S)
    assert nothing_of_ours(pod)
    texts.update({answer["prompt"]: answer["text"] for answer in client(node)})
    assert all(texts.values())


def readme() -> list[str]:
    """The five lines for Kubernetes in the README."""
    text = (ROOT / "README.md").read_text()
    block = text[text.index("    helm install trail-crds") :]
    lines = [line.strip() for line in block[: block.index("\n\n")].splitlines()]
    assert len(lines) == 5
    return lines


def test_the_readmes_lines_make_vllm_run_under_trail(
    node: Node, user: dict[str, Object], texts: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 0 means that the pods are there. The same text comes from them, and prompts are predicted."""
    (tmp_path / "policy.yaml").write_text(json.dumps(user["TrailPolicy"]))
    apply, enable, status = readme()[2:]
    node.shell(apply, cwd=tmp_path)
    done = node.shell(enable)
    (pod,) = serving(node, injected=True)
    assert "TRAIL is on by TrailPolicy llm/default: 1 of 1 pods run with it" in done.stdout
    assert re.search(r"llm/deployment/demo .* 1/1", node.shell(status).stdout)
    assert len(pod["spec"]["containers"]) == 2
    eventually("prompts", lambda: "prompt predictor ready" in node.logs(USERS, name(pod), SIDECAR))
    answers = client(node, "--together", "24")
    assert all(answer["text"] == texts[answer["prompt"]] for answer in answers)
    shown = eventually("the engine", lambda: engine_known(node, pod))
    assert metric(shown, "trail_prompt_seconds_count")
    assert metric(shown, "trail_engine_problem") in (None, 0)
    explained = node.shell(
        f"kubectl -n llm exec {name(pod)} -c trail-sidecar -- trail explain {answers[-1]['id']}"
    )
    assert "what happened" in explained.stdout
    assert "predicted" in explained.stdout
    said = node.shell(f"trail explain-injection {name(pod)} -n llm").stdout
    assert "injected by TrailPolicy llm/default" in said


def engine_known(node: Node, pod: Object) -> str:
    """The sidecar's metrics once they show an engine that orders by predictions."""
    shown = sidecar_metrics(node, pod)
    return (
        shown
        if (metric(shown, "trail_ordering") or 0) >= 1 and metric(shown, "trail_predictions_total")
        else ""
    )


def test_status_and_top_show_it(node: Node) -> None:
    """Their pictures are kept."""
    (pod,) = serving(node, injected=True)
    status = node.shell("trail status -n llm")
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "status.txt").write_text(status.stdout)
    top = node.shell(f"kubectl -n llm exec {name(pod)} -c trail-sidecar -- trail top --once")
    assert "trail" in top.stdout
    (BUILD / "top.txt").write_text(top.stdout)


def test_a_request_is_traced_into_the_clients_own_trace(node: Node) -> None:
    """vLLM's span and the sidecar's are children of the client's, at the collector that the policy names."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    client(node, "--traceparent", f"00-{trace}-{span}-01", "--max-tokens", "10")
    (collector,) = node.find("pods", WATCHED, "app=collector")

    def spans() -> Any:
        lines = node.logs(WATCHED, name(collector), "collector").splitlines()
        found = [json.loads(line) for line in lines if trace in line]
        kinds = {s["name"] for s in found if s["parent"] == span}
        return kinds if {"trail.schedule", "llm_request"} <= kinds else None

    eventually("both spans in the client's trace", spans)


def test_prometheus_scrapes_sidecar_and_operator(node: Node) -> None:
    """Both show what docs/metrics.md says of them."""
    url = address(node, "prometheus", WATCHED, 9090)

    def series(query: str) -> list[Any]:
        said = node.inside("curl", "-sf", f"{url}/api/v1/query", "--data-urlencode", f"query={query}").stdout
        return list(json.loads(said)["data"]["result"])

    eventually("the sidecar's metrics", lambda: series('trail_predictions_total{job="sidecars"} > 0'))
    eventually("the operator's metrics", lambda: series("trail_operator_watches_up == 1"))
    assert series('up{job="sidecars"} == 1')


def test_c_is_set_by_hand_and_then_tuned_under_load(node: Node, tmp_path: Path) -> None:
    """Through the chart's own Redis, without a pod being made anew."""
    (before,) = serving(node, injected=True)
    node.shell("trail c set 0.35 deploy/demo -n llm")
    eventually("c in the sidecar", lambda: metric(sidecar_metrics(node, before), "trail_policy_c") == 0.35)
    node.shell("trail c set auto -n llm --max 0.9")
    with load(node, tmp_path) as answers:

        def tuned() -> bool:
            """Whether the sidecar has a c that the controller chose; it may choose again at any time."""
            workload = (node.get(*POLICY)["status"].get("workloads") or [{}])[0]
            by_controller = "kvPressure" in workload and "fixed" not in workload.get("reason", "fixed")
            return by_controller and metric(sidecar_metrics(node, before), "trail_policy_c") == workload["c"]

        eventually("c of the controller in the sidecar", tuned)
    assert answers
    assert not [a["error"] for a in answers if a["error"]]
    assert re.search(r"^c +[0-9.]+ since \S+: ", node.shell("trail c get -n llm").stdout, re.MULTILINE)
    (after,) = serving(node, injected=True)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


# ---- what fails around it -----------------------------------------------------------------------


def test_no_request_is_lost_whatever_of_ours_goes_away(node: Node, tmp_path: Path) -> None:
    """Under load: Redis and operator deleted, the sidecar killed, the kubelet stopped and started."""
    (pod,) = serving(node, injected=True)
    with load(node, tmp_path) as answers:
        node.kubectl("-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/component=redis", "--wait=false")
        node.kubectl(
            "-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--wait=false"
        )
        eventually("both again", lambda: [p for p in node.find("pods", SYSTEM) if ready(p)][1:])
        node.shell("trail c set 0.45 -n llm")
        eventually("c in the sidecar", lambda: metric(sidecar_metrics(node, pod), "trail_policy_c") == 0.45)
        node.execute(name(pod), SIDECAR, "python", "-c", KILL)
        eventually("the sidecar again", lambda: "the sidecar ended" in node.logs(USERS, name(pod), SIDECAR))
        eventually("its predictions again", lambda: engine_known(node, pod))
        restart_kubelet(node)
        eventually("the kubelet", lambda: node.execute(name(pod), SIDECAR, "echo", "here"))
    failed = [a["error"] for a in answers if a["error"]]
    print(f"{len(answers)} requests, {len(failed)} failed")
    assert len(answers) > 20
    assert not failed
    # A kubelet that starts asks every probe anew.
    (after,) = eventually("the pod", lambda: serving(node, injected=True))
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert all(s["restartCount"] == 0 for s in after["status"]["containerStatuses"])


KILL = """
import os, pathlib, signal
for place in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    words = place.read_bytes().split(b'\\0')
    if b'sidecar' in words and place.parent.name != '1':
        os.kill(int(place.parent.name), signal.SIGKILL)
"""


def restart_kubelet(node: Node) -> None:
    """Ends it and starts it by its own command line, as a package upgrade on a node does."""
    pid = node.inside("pidof", "kubelet").stdout.split()[0]
    words = node.inside("cat", f"/proc/{pid}/cmdline").stdout.strip("\0").split("\0")
    node.inside("kill", pid)
    eventually("the kubelet's end", lambda: not node.inside("pidof", "kubelet", check=False).stdout.strip())
    node.inside("sh", "-c", f"setsid {shlex.join(words)} > /run/kubelet.again.log 2>&1 < /dev/null &")


def test_the_other_commands_of_the_docs_do_what_they_say(node: Node, tmp_path: Path) -> None:
    """An upgrade, new passwords of Redis, and a decision log out of a pod."""
    (pod,) = serving(node, injected=True)
    node.shell("helm upgrade trail-crds charts/trail-crds -n trail-system")
    node.shell("helm upgrade trail charts/trail -n trail-system")
    secret = ("secret", "trail-redis-access", "-n", SYSTEM)
    before = node.get(*secret)["data"]
    for line in documented():
        if "trail-redis-access" in line or "rollout restart" in line:
            node.shell(line)
    eventually("new passwords", lambda: (node.get(*secret).get("data") or before) != before)
    for deployment in ("trail-operator", "trail-redis"):
        node.kubectl("-n", SYSTEM, "rollout", "status", f"deployment/{deployment}", "--timeout=120s")
    node.shell("kubectl -n llm annotate deployment demo trail.dev/inject=enabled")
    node.shell(
        f"kubectl -n llm exec {name(pod)} -c trail-sidecar -- cat /tmp/decisions.jsonl > decisions.jsonl",
        cwd=tmp_path,
    )
    # The policy is not in shadow: the report says that it has nothing to compare with.
    assert "policy in shadow" in node.shell("trail shadow-report decisions.jsonl", rc=2, cwd=tmp_path).stderr
    (after,) = serving(node, injected=True)
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]


def documented() -> list[str]:
    """Commands on a cluster in the code blocks of docs/kubernetes/install.md and annotate.md."""
    lines: list[str] = []
    for file in ("install.md", "annotate.md"):
        text = re.sub(r" \\\n\s+", " ", (ROOT / "docs/kubernetes" / file).read_text())
        lines += [line.split("   #")[0].strip() for line in re.findall(r"^ {4,}(.*)$", text, re.MULTILINE)]
    return [line for line in lines if re.match(r"(helm|kubectl|trail) ", line)]


def as_documented(line: str) -> str:
    """A command with the names that the docs use."""
    for found, shown in (
        (r"demo(-\w+){2}", "llama-5f9c-x2x4z"),
        (r"\bdemo\b", "llama"),
        (r"cmpl-\S+", "cmpl-8b1c"),
    ):
        line = re.sub(found, shown, line)
    return line


def test_other_pods_are_asked_for(node: Node, user: dict[str, Object]) -> None:
    """They start while the next steps wait for something else."""
    digest = make_archive(node, PREDICTOR)
    node.apply(*archive_server())
    eventually("the archive", lambda: any(map(ready, node.find("pods", WATCHED, "app=archive"))))
    files = {
        "trail.json": "trail.json",
        "probe.safetensors": "probe.safetensors",
        "prompt.config.json": "prompt/config.json",
        "prompt.model.safetensors": "prompt/model.safetensors",
    }
    words = [f"--from-file={key}={PREDICTOR / file}" for key, file in files.items()]
    node.kubectl("-n", USERS, "create", "configmap", "predictor", *words)
    by_url = {"location": f"http://archive.{WATCHED}.svc:8080/predictor.tar.gz", "sha256": digest}
    node.apply(
        policy("by-url", quality="Watch", predictor={"layer": 3, "url": by_url}),
        policy("by-map", quality="Watch", predictor={"layer": 3, "configMap": {"name": "predictor"}}),
        hard(user["Deployment"]),
        variant(user["Deployment"], "pair", inject="by-map", replicas=2),
        {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget",
         "metadata": {"name": "pair", "namespace": USERS},
         "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "pair"}}}},
        service("hard"), service("pair"),
    )  # fmt: skip


def hard(deployment: Object) -> Object:
    """What a hardened namespace makes of a Deployment."""
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    resources = {"cpu": "1", "memory": "6Gi"}
    return variant(
        deployment, "hard", inject="by-url",
        securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
        container={
            "resources": {"requests": resources, "limits": resources},
            "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
            "env": [*container["env"], *({"name": n, "value": "/tmp"} for n in ("HOME", "TMPDIR")),
                    {"name": "USER", "value": "vllm"}],
            "volumeMounts": [*container["volumeMounts"], {"name": "tmp", "mountPath": "/tmp"}],
        },
        volumes=[*deployment["spec"]["template"]["spec"]["volumes"], {"name": "tmp", "emptyDir": {}}],
    )  # fmt: skip


def test_an_image_that_cannot_be_pulled_is_taken_back_with_its_cause(
    node: Node, user: dict[str, Object]
) -> None:
    """The pods come without TRAIL, the policy says why, and a mended policy is tried again."""
    image = {"image": "registry.invalid/no/such:1"}
    node.apply(policy("broken", policy={"name": "fcfs"}, sidecar=image),
               still(user["Deployment"], "still", "broken"))  # fmt: skip
    (pod,) = eventually("a pod without TRAIL", lambda: serving(node, "still", injected=False), 240)
    assert status_of(pod)["reason"] == "Withdrawn"
    (item,) = node.get("trailpolicy", "broken", "-n", USERS)["status"]["withdrawn"]
    assert item["reason"] == "ImagePullFailed"
    assert "registry.invalid/no/such:1" in item["message"]
    assert "back-off" not in item["message"].lower()
    said = node.shell(f"trail explain-injection {name(pod)} -n llm", rc=1).stdout
    assert "Withdrawn" in said
    assert "it would be injected" not in said
    node.kubectl("-n", USERS, "patch", "trailpolicy", "broken", "--type=merge", "-p",
                 '{"spec": {"sidecar": {"image": null}}}')  # fmt: skip
    eventually("the mended pod", lambda: serving(node, "still", injected=True))


def test_a_changed_policy_rolls_its_pods_and_disable_gives_them_back(node: Node) -> None:
    (before,) = serving(node, "still", injected=True)
    node.kubectl("-n", USERS, "patch", "trailpolicy", "broken", "--type=merge", "-p",
                 '{"spec": {"sidecar": {"metricsPort": 9465}}}')  # fmt: skip
    eventually("pods by the changed policy", lambda: [
        p for p in serving(node, "still", injected=True)
        if status_of(p)["policyHash"] != status_of(before)["policyHash"]])  # fmt: skip
    node.shell("trail disable deploy/still -n llm")
    (pod,) = serving(node, "still", injected=False)
    assert nothing_of_ours(pod)
    node.kubectl("-n", USERS, "delete", "deployment", "still")


# ---- other pods, other predictors ---------------------------------------------------------------


def test_users_file_systems_classes_replicas_and_predictors_of_every_kind(
    node: Node, texts: dict[str, str]
) -> None:
    """As user 1000 with a read-only root file system, fsGroup, class Guaranteed and a predictor by URL; two
    replicas under a disruption budget with a predictor out of a config map. The demo's ran as root."""
    (one,) = eventually("the hard one", lambda: serving(node, "hard", injected=True), VLLM_PATIENCE_S)
    two = eventually("both replicas", lambda: serving(node, "pair", count=2, injected=True), VLLM_PATIENCE_S)
    assert one["status"]["qosClass"] == "Guaranteed"
    for app in ("hard", "pair"):
        assert {a["prompt"]: a["text"] for a in client(node, app=app)} == texts
    for pod in (one, *two):
        eventually(f"predictions in {name(pod)}", lambda pod=pod: seen(node, pod))
    budget = node.get("poddisruptionbudget", "pair", "-n", USERS)["status"]
    assert budget["disruptionsAllowed"] == 1


def seen(node: Node, pod: Object) -> str:
    """Asks again until this pod, too, has had requests that were predicted."""
    client(node, "--max-tokens", "20", app=pod["metadata"]["labels"]["app"])
    return engine_known(node, pod)


# ---- away again ---------------------------------------------------------------------------------


def fill(node: Node, deployment: Object) -> None:
    """A pod that asks for all CPU that is left."""
    gone = ("Succeeded", "Failed")
    running = [p for p in node.get("pods", "-A")["items"] if p["status"]["phase"] not in gone]
    asked = sum(int(1000 * (cpu_request(c) or 0)) for p in running for c in p["spec"]["containers"])
    left = int(1000 * (quantity(node.get("node", "node-0")["status"]["allocatable"]["cpu"]) or 0)) - asked
    filler = still(deployment, "filler", "disabled")
    filler["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{left}m"}}
    node.apply(filler)
    eventually("a full node", lambda: serving(node, "filler", injected=False))


def test_removal_leaves_running_models_and_nothing_of_ours(
    node: Node, user: dict[str, Object], texts: dict[str, str]
) -> None:
    """The charts go while a workload is on and the node is full: its pods roll and serve without TRAIL."""
    for app in ("hard", "pair"):
        node.kubectl("-n", USERS, "delete", "deployment", app)
    fill(node, user["Deployment"])
    node.shell("helm uninstall trail -n trail-system")
    (pod,) = eventually("pods without TRAIL", lambda: serving(node, injected=False), VLLM_PATIENCE_S)
    assert nothing_of_ours(pod)
    assert {answer["prompt"]: answer["text"] for answer in client(node)} == texts
    kinds = "all,secrets,configmaps,leases,networkpolicies,serviceaccounts,roles,rolebindings"
    label = ("-l", "app.kubernetes.io/instance=trail")
    eventually("an empty namespace", lambda: not node.get(kinds, "-n", SYSTEM, *label)["items"])
    everywhere = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations"
    assert not node.get(everywhere, *label)["items"]
    node.shell("helm uninstall trail-crds -n trail-system")
    node.shell("kubectl delete crd trailpolicies.trail.dev")
    said = set(map(as_documented, node.said))
    assert [line for line in documented() if as_documented(line) not in said] == []
