"""`trail status`, `enable`, `disable`, `c`, `explain-injection` against a fake API server."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_kit import (
    DEPLOYMENTS,
    HOOKS,
    OPERATOR,
    PODS,
    POLICIES,
    Object,
    Trail,
    inject_pod,
    make_deployment,
    make_pod,
    pods_of,
)
from fake_api import FakeApi, write_kubeconfig
from operator_kit import make_policy

COMMANDS = {
    "status": [],
    "enable": ["deploy/llama"],
    "disable": ["deploy/llama"],
    "c": ["get"],
    "explain-injection": ["llama-5f-x"],
}


def annotation_of(api: FakeApi, name: str = "llama") -> str | None:
    annotations: dict[str, str] = api.objects[f"{DEPLOYMENTS}/{name}"]["metadata"]["annotations"]
    return annotations.get("trail.dev/inject")


def put_pod(api: FakeApi, pod: Object) -> None:
    api.put(f"{PODS}/{pod['metadata']['name']}", pod)


# ---- what can go wrong with any of them ------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_and_ends_well(name: str, trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        trail(name, "--help")
    assert end.value.code == 0
    assert "usage: trail" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_no_kubeconfig_is_said(
    name: str,
    trail: Trail,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(place, str(tmp_path / "none"))
    assert trail(name, *COMMANDS[name]) == 1
    assert "set KUBECONFIG" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_cluster_that_is_away_is_said(
    name: str,
    trail: Trail,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(place, str(write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}", "llm")))
    assert trail(name, *COMMANDS[name]) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[1, 2", "just text", "", "a: [", "contexts: 7\nclusters: x\n"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_kubeconfig_that_is_none_is_said(
    name: str,
    text: str,
    trail: Trail,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    place = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(place, str(file))
    assert trail(name, *COMMANDS[name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no cluster: " in line
    assert "set KUBECONFIG" in line


@pytest.fixture
def silent_cluster(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig whose server takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield write_kubeconfig(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}", "llm")


@pytest.mark.parametrize("name", ["status", "enable", "disable", "c", "explain-injection"])
def test_an_interrupt_ends_it_with_a_sentence(name: str, silent_cluster: Path) -> None:
    words = COMMANDS[name]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, name, *words],
        env={**os.environ, "KUBECONFIG": str(silent_cluster)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "asking\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == f"trail {said_as(name)}: interrupted; what was done by then stays"


def said_as(name: str) -> str:
    return "c get" if name == "c" else name


INTERRUPTED = """
import sys
from trail_operator.cluster_api.kube import Kube
ask = Kube._call
async def say(self, *words, **more):
    print("asking", file=sys.stderr, flush=True)
    return await ask(self, *words, **more)
Kube._call = say
from trail.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_reader_that_goes_away_is_no_fault_of_the_cluster(api: FakeApi) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "trail", "status"], stdout=write, stderr=subprocess.PIPE, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("status", ("GET", "trailpolicies")),
        ("status", ("GET", "pods")),
        ("enable", ("GET", "deployments/llama")),
        ("enable", ("PATCH", "deployments")),
        ("disable", ("PATCH", "deployments")),
        ("c", ("GET", "trailpolicies")),
        ("explain-injection", ("GET", "pods")),
    ],
)
def test_a_missing_permission_is_said(
    api: FakeApi, trail: Trail, name: str, refused: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    api.refused.add(refused)
    assert trail(name, *COMMANDS[name]) == 1
    assert "you may not do that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("enable", ["deploy/none"]),
        ("disable", ["sts/none"]),
        ("c", ["get", "none"]),
        ("c", ["get", "deploy/none"]),
        ("explain-injection", ["none"]),
    ],
)
def test_what_is_not_there_is_said(
    api: FakeApi, trail: Trail, name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trail(name, *words) == 1
    assert "there is no" in capsys.readouterr().err


def test_a_cluster_without_trail_is_said(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    del api.objects[f"{POLICIES}/default"]
    api.collections.discard("trailpolicies")
    assert trail("status") == 1
    assert "install the charts" in capsys.readouterr().err


def test_the_namespace_option_wins_over_the_context(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trail("explain-injection", "llama-5f-x", "-n", "other") == 1
    assert "namespace other" in capsys.readouterr().err


def test_a_context_that_is_not_there_is_said(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trail("status", "--context", "moon") == 1
    assert "moon" in capsys.readouterr().err


# ---- enable, disable -------------------------------------------------------------------------------


def test_enable_annotates_and_says_by_which_policy(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trail("enable", "deploy/llama", "--no-wait") == 0
    assert annotation_of(api) == "enabled"
    out = capsys.readouterr().out
    assert "llm/default" in out
    assert "not waited for" in out
    assert "roll" not in out


def test_enable_with_a_policy_names_it(api: FakeApi, trail: Trail) -> None:
    api.put(f"{POLICIES}/fast", make_policy("fast"))
    assert trail("enable", "deploy/llama", "--policy", "fast", "--no-wait") == 0
    assert annotation_of(api) == "fast"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["deploy/web"], "NoVllmContainer"),
        (["deploy/llama", "--policy", "moon"], "PolicyNotFound"),
    ],
)
def test_enable_says_why_nothing_will_be_injected(
    api: FakeApi, trail: Trail, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trail("enable", *words) == 1
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize("policy", ["a b", "disabled", "Enabled", "a/b/c", "", "/x"])
def test_enable_refuses_what_names_no_policy_and_writes_nothing(
    api: FakeApi, trail: Trail, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        trail("enable", "deploy/llama", "--policy", policy)
    assert end.value.code == 2
    assert "write POLICY or NAMESPACE/POLICY" in capsys.readouterr().err
    assert annotation_of(api) is None


@pytest.mark.parametrize("name", ["enable", "disable"])
@pytest.mark.parametrize("workload", ["llama", "deploy/", "job/llama", "/llama"])
def test_what_is_no_workload_is_refused(
    trail: Trail, name: str, workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        trail(name, workload)
    assert end.value.code == 2
    assert "write deploy/NAME or statefulset/NAME" in capsys.readouterr().err


def test_disable_removes_the_annotation(api: FakeApi, trail: Trail) -> None:
    api.put(f"{DEPLOYMENTS}/llama", make_deployment(**{"trail.dev/inject": "enabled"}))
    assert trail("disable", "deploy/llama", "--no-wait") == 0
    assert annotation_of(api) is None


def test_disable_says_disabled_where_a_selector_takes_the_pods(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(f"{POLICIES}/all", make_policy("all", workloads={"selector": {"matchLabels": {"app": "llama"}}}))
    assert trail("disable", "deploy/llama", "--no-wait") == 0
    assert annotation_of(api) == "disabled"
    assert "llm/all" in capsys.readouterr().out


def test_disable_says_disabled_where_it_may_not_see_who_would_take_the_pods(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the word they might go on with TRAIL, and the operator would be waited for in vain."""
    api.put(f"{DEPLOYMENTS}/llama", make_deployment(**{"trail.dev/inject": "enabled"}))
    api.refused.add(("GET", "trailpolicies"))
    assert trail("disable", "deploy/llama", "--no-wait") == 0
    assert annotation_of(api) == "disabled"
    assert "may not see" in capsys.readouterr().out


# ---- c ---------------------------------------------------------------------------------------------


def test_c_set_fixes_c(api: FakeApi, trail: Trail) -> None:
    assert trail("c", "set", "0.4") == 0
    assert api.objects[f"{POLICIES}/default"]["spec"]["c"] == {"mode": "Fixed", "value": 0.4}


def test_c_set_auto_keeps_the_bounds(api: FakeApi, trail: Trail) -> None:
    api.put(f"{POLICIES}/default", make_policy(c={"mode": "Fixed", "value": 0.4, "min": 0.1, "max": 0.9}))
    assert trail("c", "set", "auto", "--max", "0.7") == 0
    found = api.objects[f"{POLICIES}/default"]["spec"]["c"]
    assert found == {"mode": "Auto", "value": 0.4, "min": 0.1, "max": 0.7}


def test_c_set_beyond_the_bounds_is_refused_and_nothing_written(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(f"{POLICIES}/default", make_policy(c={"mode": "Auto", "min": 0.5, "max": 0.9}))
    assert trail("c", "set", "0.2") == 1
    assert "would be invalid" in capsys.readouterr().err
    assert not [call for call in api.calls if call[0] == "PATCH"]


@pytest.mark.parametrize("value", ["2", "-0.1", "nan", "much"])
def test_a_c_that_is_none_is_refused(trail: Trail, value: str) -> None:
    with pytest.raises(SystemExit) as end:
        trail("c", "set", f" {value}")
    assert end.value.code == 2


def test_c_of_a_workload_is_that_of_its_policy(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(f"{DEPLOYMENTS}/llama", make_deployment(**{"trail.dev/inject": "fast"}))
    status = {
        "c": {"effective": 0.25, "since": "2026-01-01T00:00:00Z", "reason": "cheap to recompute"},
        "workloads": [{"workload": "llm/deployment/llama", "c": 0.25, "kvPressure": 0.9}],
    }
    api.put(f"{POLICIES}/fast", {**make_policy("fast"), "status": status})
    assert trail("c", "get", "deploy/llama") == 0
    out = capsys.readouterr().out
    assert "llm/fast" in out
    assert "0.25 since 2026-01-01T00:00:00Z: cheap to recompute" in out
    assert "llm/deployment/llama" in out


def test_c_of_a_workload_without_a_policy_is_said(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trail("c", "get", "deploy/llama") == 1
    assert "no TrailPolicy applies" in capsys.readouterr().err


# ---- status ----------------------------------------------------------------------------------------


def test_status_counts_pods_by_workload(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    pod = make_pod(deployment)
    put_pod(api, inject_pod(pod, make_policy()))
    put_pod(api, {**pod, "metadata": {**pod["metadata"], "name": "llama-5f-y"}})
    assert trail("status", "--json") == 0
    report: Any = json.loads(capsys.readouterr().out)
    (row,) = report["workloads"]
    assert row["workload"] == "llm/deployment/llama"
    assert row["injected"] == "1/2"
    assert row["policy"] == "llm/default"
    assert report["operator"] == "trail-system/trail-operator, 2 of 2 replicas ready"
    assert [p["policy"] for p in report["policies"]] == ["llm/default"]


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ('trail_up 1.0\ntrail_pacing_info{profile="own-cores"} 1.0\n', "own-cores"),
        ("of an older sidecar", None),
        (None, None),
    ],
)
def test_status_shows_the_pacing_that_a_sidecar_names(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str], page: str | None, shown: str | None
) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    for pod in pods_of(deployment, make_policy()):
        put_pod(api, pod)
        if page is not None:
            api.objects[f"{PODS}/{pod['metadata']['name']}:9464/proxy/metrics"] = page
    assert trail("status", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["workloads"]
    assert row["pacing"] == shown
    api.refused.add(("GET", "/proxy/"))
    assert trail("status") == 0
    assert "own-cores" not in capsys.readouterr().out


def test_status_shows_what_is_degraded(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Accepted", "message": ""},
        {"type": "Degraded", "status": "True", "reason": "LoopFailed", "message": "Redis cannot be used"},
    ]
    api.put(f"{POLICIES}/default", {**make_policy(), "status": {"conditions": conditions}})
    assert trail("status", "-A") == 0
    assert "LoopFailed: Redis cannot be used" in capsys.readouterr().out


def test_status_without_a_look_at_other_namespaces(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    api.refused.add(("GET", "/apis/apps/v1/deployments"))
    assert trail("status") == 0
    assert "operator: not found, or you may not look" in capsys.readouterr().out


# ---- explain-injection -----------------------------------------------------------------------------


def explain(trail: Trail, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = trail("explain-injection", "llama-5f-x")
    return code, capsys.readouterr().out


def test_an_injected_pod_is_explained(api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    put_pod(api, inject_pod(make_pod(make_deployment()), make_policy()))
    code, out = explain(trail, capsys)
    assert code == 0
    assert "injected by TrailPolicy llm/default" in out
    assert "has not changed since" in out
    api.put(f"{POLICIES}/default", make_policy(everySteps=4))
    assert "has changed since; a new pod" in explain(trail, capsys)[1]


def test_an_old_pod_of_an_annotated_workload_is_explained(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    put_pod(api, make_pod(deployment))
    code, out = explain(trail, capsys)
    assert code == 1
    assert "made anew now, it would be injected" in out
    assert "older than the wish" in out


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"webhooks": []}, "has no webhook"),
        ({"webhooks": [{"name": "inject.trail.dev", "clientConfig": {}}]}, "no authority"),
        (
            {
                "webhooks": [
                    {
                        "name": "inject.trail.dev",
                        "clientConfig": {"caBundle": "Y2E="},
                        "namespaceSelector": {
                            "matchExpressions": [
                                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["llm"]}
                            ]
                        },
                    }
                ]
            },
            "leaves out namespace llm",
        ),
    ],
)
def test_why_the_webhook_was_never_met(
    api: FakeApi, trail: Trail, change: Object, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    put_pod(api, make_pod(deployment))
    api.put(f"{HOOKS}/trail", {"metadata": {"name": "trail"}, **change})
    assert cause in explain(trail, capsys)[1]


def test_an_operator_that_is_not_ready_is_a_cause(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    put_pod(api, make_pod(deployment))
    api.objects[OPERATOR]["status"] = {}
    assert "is not ready" in explain(trail, capsys)[1]


def test_a_pod_that_nobody_asks_for_is_explained(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pod(api, make_pod(make_deployment()))
    code, out = explain(trail, capsys)
    assert code == 1
    assert "neither pod nor workload nor namespace asks" in out


def test_a_skipped_pod_is_explained_with_its_reason(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(image="nginx:1", **{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    put_pod(api, inject_pod(make_pod(deployment), make_policy()))
    code, out = explain(trail, capsys)
    assert code == 1
    assert "not injected (NoVllmContainer)" in out
    assert "the same would happen now" in out


def test_a_withdrawal_is_explained(api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    put_pod(api, make_pod(deployment))
    item = {"workload": "llm/deployment/llama", "hash": "x", "message": "no such image"}
    api.put(f"{POLICIES}/default", {**make_policy(), "status": {"withdrawn": [item]}})
    out = explain(trail, capsys)[1]
    assert "taken back from llm/deployment/llama" in out
    assert "no such image" in out
