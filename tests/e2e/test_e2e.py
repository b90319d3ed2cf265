"""From an empty cluster to an empty cluster: install, annotate, change, follow c, take away, remove.

Needs an API server with its controllers, no kubelet: operator and certificates run as processes beside it,
with the rights of the chart's service account, and the webhook is reached by URL. The tests are one story, in
order.
"""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from e2e_kit import (
    NAMESPACE,
    RELEASE,
    ROOT,
    USERS,
    Cluster,
    Object,
    Processes,
    eventually,
    fill_redis_secret,
    operator_env,
    publish,
    python,
    redis_secret,
    start_certificates,
    trail,
)
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from trail.wire.redis_schema import Keys
from trail_operator import names
from trail_operator.access import sidecar_user
from trail_operator.admission.inject import read_status
from trail_operator.cluster_api.kube import KubeError, path

WORKLOAD = f"{USERS}/deployment/llama"
LLAMA = path("apps/v1", "deployments", USERS, "llama")
WEB = path("apps/v1", "deployments", USERS, "web")
POLICY = path(names.API_VERSION, names.PLURAL, USERS, "default")
LEFTOVERS = [
    path("rbac.authorization.k8s.io/v1", "clusterroles"),
    path("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    path("apps/v1", "deployments", NAMESPACE),
    path("v1", "services", NAMESPACE),
    path("v1", "serviceaccounts", NAMESPACE),
    path("coordination.k8s.io/v1", "leases", NAMESPACE),
    path("networking.k8s.io/v1", "networkpolicies", NAMESPACE),
    path("v1", "secrets", NAMESPACE),
]

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def failed_before(request: pytest.FixtureRequest) -> int:
    return int(request.session.testsfailed)


@pytest.fixture(autouse=True)
def _story(request: pytest.FixtureRequest, failed_before: int) -> None:
    """A chapter makes no sense after one that failed."""
    if request.session.testsfailed > failed_before:
        pytest.skip("an earlier part of the story failed")


def deployment(name: str, image: str) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": USERS},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0,
                         "containers": [{"name": "main", "image": image, "args": ["--model", "m"]}]},
            },
        },
    }  # fmt: skip


def values(port: int) -> Object:
    return {
        "operator": {"replicas": 0, "withdrawAfterSeconds": 5},
        "webhook": {"url": f"https://127.0.0.1:{port}/inject"},
        "clusterPolicy": {"spec": {"policy": {"name": "fcfs"}}},
    }


def pods(cluster: Cluster, app: str = "llama") -> list[Object]:
    found = cluster.all(path("v1", "pods", USERS), f"app={app}")
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def injected(cluster: Cluster) -> list[Object]:
    """The pods of llama where both are injected, else none."""
    found = pods(cluster)
    done = [pod for pod in found if (read_status(pod) or {}).get("injected") is True]
    return done if len(done) == len(found) == 2 else []


def bare(cluster: Cluster) -> bool:
    """Whether both pods of llama are without TRAIL."""
    found = pods(cluster)
    text = json.dumps([pod["spec"] for pod in found])
    return len(found) == 2 and "trail" not in text.replace("trail-e2e", "")


def template_notes(cluster: Cluster) -> dict[str, str]:
    obj = cluster.get(LLAMA)
    assert obj is not None
    notes: dict[str, str] = obj["spec"]["template"]["metadata"].get("annotations") or {}
    return notes


def environment(pod: Object, container: str) -> dict[str, str]:
    every = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    env = next(c for c in every if c["name"] == container).get("env") or []
    return {e["name"]: e.get("value", "") for e in env}


def c_in_redis(redis: "Redis[bytes]") -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = redis.hgetall(Keys(WORKLOAD).c)
    return found


def test_the_charts_install(cluster: Cluster, helm: helm_python.Config, port: int) -> None:
    helm.install(ROOT / "charts/trail-crds", f"{RELEASE}-crds", namespace=NAMESPACE, create_namespace=True)
    eventually("the resource", lambda: cluster.get(path(names.API_VERSION, names.PLURAL)) is not None)
    helm.install(ROOT / "charts/trail", RELEASE, values(port), namespace=NAMESPACE)
    (hook,) = cluster.all(LEFTOVERS[2], f"app.kubernetes.io/instance={RELEASE}")
    assert hook["webhooks"][0]["failurePolicy"] == "Ignore"
    assert cluster.get(path(names.API_VERSION, names.PLURAL, NAMESPACE, "cluster"))


def test_users_have_a_model_and_a_policy(cluster: Cluster) -> None:
    cluster.create(path("v1", "namespaces"), {"metadata": {"name": USERS}})
    eventually(
        "the namespace's account", lambda: cluster.get(path("v1", "serviceaccounts", USERS, "default"))
    )
    policy = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "default"},
        "spec": {"predictor": {"layer": 11, "image": {"reference": "registry.example/predictor:1"}}},
    }
    made = cluster.create(path(names.API_VERSION, names.PLURAL, USERS), policy)
    assert made["spec"]["c"] == {"mode": "Auto", "min": 0, "max": 1}
    where = path("apps/v1", "deployments", USERS)
    cluster.create(where, deployment("llama", "vllm/vllm-openai:v0.32.0"))
    cluster.create(where, deployment("web", "nginx:1"))
    eventually("pods without TRAIL, and without an operator", lambda: bare(cluster))


def test_the_operator_starts_with_the_charts_rights(
    cluster: Cluster, processes: Processes, directory: Path, account: Path, port: int, redis_port: int
) -> None:
    start_certificates(cluster, processes, account, directory)
    secret = fill_redis_secret(cluster, processes, account)
    processes.start("redis", secret.server(redis_port, directory), {})
    start_operator(cluster, processes, directory, account, port, redis_port)
    eventually(
        "the lease",
        lambda: (
            (cluster.get(path("coordination.k8s.io/v1", "leases", NAMESPACE, f"{RELEASE}-operator")) or {})
            .get("spec", {})
            .get("holderIdentity")
        ),
    )
    (hook,) = cluster.all(LEFTOVERS[2], f"app.kubernetes.io/instance={RELEASE}")
    assert hook["webhooks"][0]["clientConfig"]["caBundle"]


def start_operator(
    cluster: Cluster, processes: Processes, directory: Path, account: Path, port: int, redis_port: int
) -> None:
    """With the passwords that the Secret holds; waits until the webhook answers."""
    secret = redis_secret(cluster)
    env = operator_env(cluster, directory, account, port) | secret.operator_env(redis_port)
    before = processes.said("operator").count("the webhook answers")
    processes.start("operator", python("-m", "trail_operator"), env)
    eventually("the webhook", lambda: processes.said("operator").count("the webhook answers") > before)


def test_an_annotated_deployment_gets_trail(cluster: Cluster) -> None:
    done = trail("enable", "deploy/llama", "-n", USERS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = eventually("injected pods", lambda: injected(cluster))
    for pod in found:
        spec = pod["spec"]
        vllm = next(c for c in spec["containers"] if c["name"] == "main")
        assert vllm["image"] == "vllm/vllm-openai:v0.32.0"
        assert vllm["args"] == ["--model", "m"]
        assert environment(pod, "main")["TRAIL_ENABLED"] == "1"
        every = [*spec["containers"], *spec["initContainers"]]
        assert {names.SIDECAR, names.ENGINE, names.PREDICTOR} <= {c["name"] for c in every}
        url = environment(pod, names.SIDECAR)["TRAIL_REDIS_URL"]
        assert f"{sidecar_user(WORKLOAD)}:" in url
        assert redis_secret(cluster).data["key"] not in json.dumps(pod)
    obj = cluster.get(LLAMA)
    assert obj is not None
    assert not obj["metadata"].get("finalizers")
    assert "kopf" not in json.dumps(obj)


def test_a_workload_without_vllm_is_told_why(cluster: Cluster) -> None:
    done = trail("enable", "deploy/web", "-n", USERS)
    assert done.returncode == 1
    assert "NoVllmContainer" in done.stdout

    def told() -> list[Object]:
        events = cluster.all(path("v1", "events", USERS))
        return [
            e for e in events if e["reason"] == "NoVllmContainer" and e["involvedObject"]["name"] == "web"
        ]

    assert eventually("an Event", told)[0]["involvedObject"]["kind"] == "Deployment"


def test_the_policy_says_how_it_stands(cluster: Cluster) -> None:
    def ready() -> Any:
        status = (cluster.get(POLICY) or {}).get("status") or {}
        kinds = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        return kinds.get("Ready") == "True" and (status.get("pods") or {}).get("injected") == 2

    eventually("a status with two pods", ready)
    done = trail("status", "-n", USERS, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["workload"]: row for row in json.loads(done.stdout)["workloads"]}
    assert rows[WORKLOAD]["injected"] == "2/2"


def test_a_changed_policy_rolls_the_pods(cluster: Cluster) -> None:
    before = template_notes(cluster)[names.STAMPED_HASH]
    cluster.patch(POLICY, {"spec": {"everySteps": 4}})

    def changed() -> bool:
        found = injected(cluster)
        return bool(found) and all(environment(p, "main").get("TRAIL_EXPORT_EVERY") == "4" for p in found)

    eventually("pods with the changed policy", changed)
    assert template_notes(cluster)[names.STAMPED_HASH] != before


def test_c_is_followed_without_a_roll(cluster: Cluster, redis: "Redis[bytes]") -> None:
    uids = {pod["metadata"]["uid"] for pod in injected(cluster)}
    done = trail("c", "set", "0.35", "deploy/llama", "-n", USERS)
    assert done.returncode == 0, done.stdout + done.stderr
    eventually("c in Redis", lambda: c_in_redis(redis).get(b"c") == b"0.35")
    eventually(
        "c in the status",
        lambda: ((cluster.get(POLICY) or {}).get("status") or {}).get("c", {}).get("effective") == 0.35,
    )
    assert {pod["metadata"]["uid"] for pod in injected(cluster)} == uids
    assert "0.35" in trail("c", "get", "-n", USERS).stdout


def test_the_server_refuses_what_the_schema_does_not_allow(cluster: Cluster) -> None:
    for spec in ({"everySteps": 0}, {"policy": {"name": "best"}}, {"c": {"value": 2}}):
        with pytest.raises(KubeError, match="422"):
            cluster.patch(POLICY, {"spec": spec})


def test_a_slip_that_an_old_server_lets_pass_changes_nothing_that_runs(cluster: Cluster) -> None:
    """Rules between fields are CEL, which servers before 1.25 do not have; the operator checks them, too."""
    uids = {pod["metadata"]["uid"] for pod in injected(cluster)}
    before = (cluster.get(POLICY) or {})["spec"]["c"]
    try:
        cluster.patch(POLICY, {"spec": {"c": {"min": 0.9, "max": 0.1}}})
    except KubeError as error:
        if error.status != 422:
            raise
        return

    def ready() -> Any:
        conditions = ((cluster.get(POLICY) or {}).get("status") or {}).get("conditions") or ()
        return next((c for c in conditions if c["type"] == "Ready"), {})

    eventually("the policy to be refused", lambda: ready().get("reason") == "InvalidSpec")
    assert "min must not exceed max" in ready()["message"]
    assert "min must not exceed max" in trail("status", "-n", USERS).stdout
    cluster.patch(POLICY, {"spec": {"c": {"min": before["min"], "max": before["max"]}}})
    eventually("the policy to be accepted", lambda: ready().get("reason") == "Accepted")
    assert {pod["metadata"]["uid"] for pod in injected(cluster)} == uids


def test_the_controller_moves_c_by_what_pods_report(
    cluster: Cluster, redis: "Redis[bytes]", redis_port: int
) -> None:
    # As the pods' own sidecars: they may report, and not more.
    sidecar = Redis.from_url(redis_secret(cluster).sidecar_url(WORKLOAD, redis_port))
    with pytest.raises(ResponseError):
        sidecar.keys("*")
    assert trail("c", "set", "auto", "deploy/llama", "-n", USERS, "--max", "0.9").returncode == 0
    names_of_pods = [pod["metadata"]["name"] for pod in injected(cluster)]

    def told() -> bool:
        for name in names_of_pods:
            publish(sidecar, WORKLOAD, name, usage=0.83)
        status = (cluster.get(POLICY) or {}).get("status") or {}
        by_controller = b"fixed" not in c_in_redis(redis).get(b"reason", b"fixed")
        return by_controller and status.get("kvPressure") == 0.83

    eventually("KV pressure in the status, and a c of the controller", told)
    held = c_in_redis(redis)
    assert 0 <= float(held[b"c"]) <= 0.9
    events = cluster.all(path("v1", "events", USERS))
    said = [e["message"] for e in events if e["reason"] == "TrailC"]
    assert any(held[b"reason"].decode() in message for message in said), said


def test_a_killed_operator_goes_on_where_it_was(
    cluster: Cluster,
    processes: Processes,
    directory: Path,
    account: Path,
    port: int,
    redis: "Redis[bytes]",
    redis_port: int,
) -> None:
    generation = int(c_in_redis(redis)[b"generation"])
    processes.end("operator", signal.SIGKILL)
    # Without the operator a pod starts all the same, without TRAIL.
    cluster.delete(path("v1", "pods", USERS, pods(cluster)[0]["metadata"]["name"]))
    eventually("a pod in its place", lambda: len(pods(cluster)) == 2)
    start_operator(cluster, processes, directory, account, port, redis_port)
    assert trail("c", "set", "0.45", "-n", USERS).returncode == 0
    eventually("the new c", lambda: c_in_redis(redis).get(b"c") == b"0.45")
    assert int(c_in_redis(redis)[b"generation"]) > generation
    for pod in pods(cluster):
        if read_status(pod) is None:
            cluster.delete(path("v1", "pods", USERS, pod["metadata"]["name"]))
    eventually("both pods with TRAIL", lambda: injected(cluster))


def test_redis_away_is_said_and_heals(
    cluster: Cluster, processes: Processes, directory: Path, redis_port: int
) -> None:
    def degraded() -> str | None:
        status = (cluster.get(POLICY) or {}).get("status") or {}
        return next((c["reason"] for c in status.get("conditions") or () if c["type"] == "Degraded"), None)

    processes.end("redis", signal.SIGKILL)
    eventually("the policy to say so", lambda: degraded() == "LoopFailed")
    processes.start("redis", redis_secret(cluster).server(redis_port, directory), {})
    eventually("the policy to be content", lambda: degraded() != "LoopFailed")
    # It came up empty: the operator has written c again, and let the sidecars in.
    sidecar = Redis.from_url(redis_secret(cluster).sidecar_url(WORKLOAD, redis_port))

    def reads_c() -> bool:
        with contextlib.suppress(RedisError):
            return bool(sidecar.hgetall(Keys(WORKLOAD).c).get(b"c") == b"0.45")
        return False

    eventually("c, as a sidecar reads it", reads_c)


def test_a_policy_that_goes_lets_its_workloads_go(cluster: Cluster) -> None:
    """The cluster's default holds in its place, and that goes by no predictor."""
    policy = cluster.get(POLICY) or {}
    cluster.delete(POLICY)

    def by_default() -> bool:
        found = injected(cluster)
        return bool(found) and all(
            (read_status(pod) or {})["policy"] == f"{NAMESPACE}/cluster" for pod in found
        )

    eventually("pods by the cluster's policy", by_default)
    spec = {key: policy["spec"][key] for key in ("predictor", "everySteps")}
    fresh = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "default"},
             "spec": spec}  # fmt: skip
    cluster.create(path(names.API_VERSION, names.PLURAL, USERS), fresh)
    eventually("pods by the namespace's policy", lambda: not by_default() and injected(cluster))


def test_an_upgrade_keeps_policies_certificate_and_passwords(
    cluster: Cluster, helm: helm_python.Config, port: int
) -> None:
    kept = [path("v1", "secrets", NAMESPACE, f"{RELEASE}-{name}") for name in
            ("operator-certificate", "redis-access")]  # fmt: skip
    before = [(cluster.get(secret) or {})["data"] for secret in kept]
    changed = {**values(port), "commonLabels": {"upgraded": "yes"}}
    helm.upgrade(ROOT / "charts/trail", RELEASE, changed, namespace=NAMESPACE)
    assert [(cluster.get(secret) or {})["data"] for secret in kept] == before
    (hook,) = cluster.all(LEFTOVERS[2], "upgraded=yes")
    assert hook["webhooks"][0]["clientConfig"]["caBundle"]
    assert (cluster.get(POLICY) or {})["spec"]["everySteps"] == 4


def test_disabling_leaves_nothing(cluster: Cluster) -> None:
    done = trail("disable", "deploy/llama", "-n", USERS)
    assert done.returncode == 0, done.stdout + done.stderr
    eventually("pods without TRAIL", lambda: bare(cluster))
    obj = cluster.get(LLAMA)
    assert obj is not None
    assert "trail.dev" not in json.dumps({k: v for k, v in obj["metadata"].items() if k != "managedFields"})
    assert not [note for note in template_notes(cluster) if note.startswith(names.GROUP)]


def test_removal_takes_stamps_out_and_everything_away(
    cluster: Cluster, helm: helm_python.Config, processes: Processes, account: Path, port: int
) -> None:
    assert trail("enable", "deploy/llama", "-n", USERS).returncode == 0
    eventually("injected pods", lambda: injected(cluster))
    hooks = helm.get_all(RELEASE)["hooks"]
    job = next(obj for obj in (yaml.safe_load(hook["manifest"]) for hook in hooks) if obj["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # Nothing runs containers here: the hook's own command, with its account, after the operator's end, as the
    # operator's pods would end by it.
    processes.end("operator")
    processes.start("uninstall", python(*container["command"][1:]), {"KUBECONFIG": str(account)})
    assert processes.running.pop("uninstall").wait(60) == 0, processes.said("uninstall")
    eventually("pods without TRAIL", lambda: bare(cluster))
    assert not [note for note in template_notes(cluster) if note.startswith(names.GROUP)]
    processes.end("certificates")
    without_hook = {**values(port), "uninstall": {"clean": False}}
    helm.upgrade(ROOT / "charts/trail", RELEASE, without_hook, namespace=NAMESPACE)
    helm.uninstall(RELEASE)
    label = f"app.kubernetes.io/instance={RELEASE}"
    eventually(
        "an empty cluster",
        lambda: not any(cluster.all(where, label) for where in LEFTOVERS),
    )
    assert len(pods(cluster)) == 2
    helm.uninstall(f"{RELEASE}-crds")
    assert cluster.get(POLICY) is not None
