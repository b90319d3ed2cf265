"""Injection as a function: properties over made-up pods, and the corners that golden files do not reach."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_kit import SETTINGS, admit, make_pod, make_policy, make_view

from trail.policy.spec import parse_policy as parse_scheduling
from trail.wire.names import PLUGIN
from trail_operator import names
from trail_operator.access import sidecar_user, with_user
from trail_operator.admission.confighash import injection_hash, policy_hash
from trail_operator.admission.containers import Plan, sidecar
from trail_operator.admission.inject import inject, read_status, strip
from trail_operator.admission.pods import VllmContainer, examine, words, workload_of
from trail_operator.policy.resource import parse_policy
from trail_operator.reasons import Reason, Skip
from trail_operator.settings import InjectionSettings

NAME = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True).filter(
    lambda n: not n.startswith("trail")
)
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
ENV = st.one_of(
    st.builds(
        lambda n, v: {"name": n, "value": v}, st.sampled_from(["A", "PYTHONPATH", "VLLM_PLUGINS", "B"]), VALUE
    ),
    st.builds(
        lambda n: {"name": n, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        st.sampled_from(["IP", "C"]),
    ),
    st.sampled_from([{"name": "A"}, {"name": "VLLM_PLUGINS"}]),
)
MOUNT = st.builds(lambda n, p: {"name": n, "mountPath": f"/mnt/{p}"}, NAME, NAME)
METADATA = st.dictionaries(NAME, VALUE, min_size=1, max_size=2)


def omit_empty(value: Any) -> Any:
    """Lists and maps that are empty, the way the API server leaves them out."""
    if isinstance(value, dict):
        kept = {k: omit_empty(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in ([], {}) or k in ("securityContext", "emptyDir")}
    return [omit_empty(v) for v in value] if isinstance(value, list) else value


@st.composite
def containers(draw: st.DrawFn, name: str, image: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "env": draw(st.lists(ENV, max_size=4)),
        "volumeMounts": draw(st.lists(MOUNT, max_size=2)),
    }


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    others = draw(st.lists(NAME, max_size=3, unique=True))
    place = draw(st.integers(0, len(others)))
    every = [draw(containers(f"x-{name}", "busybox")) for name in others]
    every.insert(place, draw(containers("vllm", "vllm/vllm-openai:v0.32.0")))
    spec: dict[str, Any] = {"containers": every}
    if draw(st.booleans()):
        spec["initContainers"] = [draw(containers("init", "busybox"))]
    if draw(st.booleans()):
        groups = draw(st.lists(st.sampled_from([1000, 2000, 65532]), max_size=2, unique=True))
        spec["securityContext"] = {"fsGroup": 5, "supplementalGroups": groups} if draw(st.booleans()) else {}
    spec["volumes"] = [{"name": n, "emptyDir": {}} for n in draw(st.lists(NAME, max_size=2, unique=True))]
    metadata: dict[str, Any] = {"name": "p", "annotations": {"trail.dev/inject": "enabled"}}
    if draw(st.booleans()):
        metadata["labels"] = draw(METADATA)
    return omit_empty({"metadata": metadata, "spec": spec})


@settings(max_examples=150, deadline=None)
@given(pod=pods(), native=st.booleans(), later_native=st.booleans())
def test_twice_is_once_and_out_again_is_the_pod(
    pod: dict[str, Any], native: bool, later_native: bool
) -> None:
    before = copy.deepcopy(pod)
    once = admit(pod, make_view([make_policy()], native=native))
    assert pod == before
    status = read_status(once)
    assert status is not None
    assert status["injected"] is True
    assert admit(once, make_view([make_policy()], native=native)) == once
    assert strip(once) == before
    # Another policy on another server: as if the first had never been.
    later = make_view([make_policy(everySteps=7)], native=later_native)
    assert admit(once, later) == admit(before, later)


@given(pod=pods())
def test_vllms_own_settings_stay_in_front(pod: dict[str, Any]) -> None:
    after = admit(pod, make_view([make_policy()]))
    index = next(i for i, c in enumerate(pod["spec"]["containers"]) if c["name"] == "vllm")
    before_env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][index].get("env", ())}
    env = {e["name"]: e.get("value") for e in after["spec"]["containers"][index]["env"]}
    own = (before_env.get("PYTHONPATH") or "").rstrip(":")
    assert env["PYTHONPATH"] == (f"{own}:{names.ENGINE_PATH}" if own else names.ENGINE_PATH)
    if "VLLM_PLUGINS" in before_env:
        allowed = [p for p in (before_env["VLLM_PLUGINS"] or "").split(",") if p]
        assert env["VLLM_PLUGINS"].split(",")[: len(allowed)] == allowed
        assert PLUGIN in env["VLLM_PLUGINS"].split(",")
    else:
        assert "VLLM_PLUGINS" not in env


def reason_of(pod: dict[str, Any]) -> Reason | None:
    found = examine(pod, metrics_port=9464)
    return found.reason if isinstance(found, Skip) else None


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (make_pod(), None),
        (make_pod(os={"name": "windows"}), Reason.WINDOWS),
        (make_pod(nodeSelector={"kubernetes.io/os": "windows"}), Reason.WINDOWS),
        (make_pod(hostNetwork=True), Reason.HOST_NETWORK),
        (make_pod(restartPolicy="Never"), Reason.RUNS_TO_COMPLETION),
        (make_pod({"image": "redis:7"}), Reason.NO_VLLM_CONTAINER),
        (make_pod({"image": "registry.example/vllm-router:1"}), Reason.NO_VLLM_CONTAINER),
        (make_pod({"image": "r/app@sha256:00", "command": ["/opt/venv/bin/vllm", "serve", "m"]}), None),
        (
            make_pod(
                {"image": "r/app:1", "args": ["python3 -m vllm.entrypoints.openai.api_server --model m"]}
            ),
            None,
        ),
        (make_pod({"image": "r/app:1", "command": ["sh", "-c", "sleep 5 && vllm serve 'm"]}), None),
        (make_pod({"image": "r/app:1", "command": ["echo", "vllm"]}), Reason.NO_VLLM_CONTAINER),
        (make_pod(annotations={names.CONTAINER: "other"}), Reason.CONTAINER_NOT_FOUND),
        (make_pod({"image": "r/app:1"}, annotations={names.CONTAINER: "vllm"}), None),
        (make_pod({"command": ["python3", "-I", "-m", "vllm.entrypoints.api_server"]}), Reason.PYTHON_PATH),
        (make_pod({"command": ["sh", "-c", "PYTHONPATH=/x vllm serve m"]}), Reason.PYTHON_PATH),
        (make_pod({"command": ["sh", "-c", "PYTHONPATH=/x:${PYTHONPATH} vllm serve m"]}), None),
        (
            make_pod({"env": [{"name": "PYTHONPATH", "value": "/x"}]}, annotations={names.PYTHON_PATH: "/y"}),
            Reason.PYTHON_PATH,
        ),
        (make_pod({"env": [{"name": "VLLM_PLUGINS", "valueFrom": {}}]}), Reason.PLUGINS),
        (make_pod({"env": [{"name": "TRAIL_ENABLED", "value": "0"}]}), Reason.ENVIRONMENT_TAKEN),
        (make_pod({"env": [{"name": "TRAIL_HEARTBEAT_MS", "value": "200"}]}), None),
        (make_pod(volumes=[{"name": "trail-run", "emptyDir": {}}]), Reason.NAME_TAKEN),
        (make_pod(initContainers=[{"name": "trail-engine", "image": "x"}]), Reason.NAME_TAKEN),
        (make_pod({"volumeMounts": [{"name": "v", "mountPath": "/run/trail/"}]}), Reason.PATH_TAKEN),
        (make_pod({"ports": [{"containerPort": 9464}]}), Reason.PORT_TAKEN),
        (make_pod({"ports": [{"containerPort": 8000, "name": "trail-metrics"}]}), Reason.PORT_TAKEN),
    ],
)
def test_every_reason_to_leave_a_pod_as_it_is(pod: dict[str, Any], reason: Reason | None) -> None:
    assert reason_of(pod) == reason


@pytest.mark.parametrize(
    ("args", "engines"),
    [
        ([], 1),
        (["--data-parallel-size", "4"], 4),
        (["--data-parallel-size=8"], 8),
        (["-dp", "2"], 2),
        (["--data-parallel-size"], 1),
        (["--data-parallel-size", "$(DP)"], 1),
        (["--data-parallel-size", "9999999999"], 64),
        (["--data-parallel-size-local", "3"], 1),
        (["vllm serve m --data-parallel-size 3"], 3),
    ],
)
def test_engine_cores_are_read_from_the_command(args: list[str], engines: int) -> None:
    assert examine(make_pod({"args": args}), metrics_port=9464) == VllmContainer(0, "vllm", engines)


def test_a_script_is_taken_apart_as_the_shell_would() -> None:
    script = "exec vllm serve 'a b' \\\n  --port 1"
    assert words({"command": ["sh", "-c", script]}) == [
        "sh",
        "-c",
        "exec",
        "vllm",
        "serve",
        "a b",
        "--port",
        "1",
    ]


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        ({"name": "a"}, "n/pod/a"),
        ({"generateName": "a-"}, "n/pod/a"),
        (
            {"name": "s-0", "ownerReferences": [{"kind": "StatefulSet", "name": "s", "controller": True}]},
            "n/statefulset/s",
        ),
        (
            {
                "labels": {"pod-template-hash": "77"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "d-e-77", "controller": True}],
            },
            "n/deployment/d-e",
        ),
        (
            {"ownerReferences": [{"kind": "ReplicaSet", "name": "bare", "controller": True}]},
            "n/replicaset/bare",
        ),
        ({"name": "a", "ownerReferences": [{"kind": "Thing", "name": "t"}]}, "n/pod/a"),
    ],
)
def test_a_pod_belongs_to_its_deployment(metadata: dict[str, Any], workload: str) -> None:
    assert workload_of({"metadata": metadata}, "n") == workload


def make_plan(**spec: Any) -> Plan:
    return Plan(
        parse_policy(make_policy(**spec)), SETTINGS, VllmContainer(0, "vllm", 1), True, "llm", "llm/pod/p"
    )


@pytest.mark.parametrize(
    ("change", "rolls"),
    [
        ({"c": {"mode": "Fixed", "value": 0.3}}, False),
        ({"workloads": {"selector": {}}}, False),
        ({"predictor": {"layer": 12, "image": {"reference": "registry.example/p:1"}}}, True),
        ({"predictor": {"layer": 11, "image": {"reference": "registry.example/p:2"}}}, True),
        ({"everySteps": 2}, True),
        ({"policy": {"name": "adaptive"}}, True),
        ({"sidecar": {"image": "x:1"}}, True),
        ({"telemetry": {"otlpEndpoint": "http://c:4318"}}, True),
        ({"quality": "Watch"}, True),
        ({"policy": {"shadow": True}}, True),
    ],
)
def test_running_pods_roll_for_what_they_cannot_be_told(change: dict[str, Any], rolls: bool) -> None:
    before, after = parse_policy(make_policy()), parse_policy(make_policy(**change))
    assert (policy_hash(before) != policy_hash(after)) == rolls
    assert (injection_hash(before, SETTINGS) != injection_hash(after, SETTINGS)) == rolls


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        ({}, {}),
        ({"quality": "Watch"}, {"TRAIL_QUALITY": "watch"}),
        (
            {"policy": {"name": "adaptive", "shadow": True}},
            {"TRAIL_DECISION_LOG": "/tmp/decisions.jsonl", "TRAIL_DECISION_LOG_MIB": "64"},
        ),
        ({"policy": {"shadow": True}, "telemetry": {"decisionLogMiB": 0}}, {}),
        (
            {"telemetry": {"decisionLogMiB": 16}},
            {"TRAIL_DECISION_LOG": "/tmp/decisions.jsonl", "TRAIL_DECISION_LOG_MIB": "16"},
        ),
    ],
)
def test_the_sidecar_is_told_of_judging_and_shadow(change: dict[str, Any], tells: dict[str, str]) -> None:
    plan = make_plan(**change)
    told = {entry["name"]: entry.get("value") for entry in sidecar(plan, make_pod())["env"]}
    names = ("TRAIL_QUALITY", "TRAIL_DECISION_LOG", "TRAIL_DECISION_LOG_MIB")
    assert {name: told[name] for name in names if name in told} == tells
    assert parse_scheduling(told["TRAIL_POLICY"]).shadow == plan.policy.scheduling.shadow


def test_the_operators_own_images_roll_nobody_but_end_a_withdrawal() -> None:
    policy, upgraded = parse_policy(make_policy()), InjectionSettings("s:2", "e:2")
    assert injection_hash(policy, SETTINGS) != injection_hash(policy, upgraded)
    view = make_view(
        [make_policy()], withdrawals=frozenset({("llm/pod/llama-0", injection_hash(policy, SETTINGS))})
    )
    status = read_status(admit(make_pod(), view))
    assert status is not None
    assert status["reason"] == "Withdrawn"
    later = make_view([make_policy()], withdrawals=view.withdrawals, settings=upgraded)
    assert (read_status(admit(make_pod(), later)) or {})["injected"] is True


def test_a_status_that_somebody_wrote_by_hand_takes_out_nothing_else() -> None:
    pod = make_pod({"env": [{"name": "A", "value": "1"}]})
    for forged in (
        "{",
        "[]",
        "3",
        '{"injected":true,"container":7,"added":3,"replaced":[],"group":{}}',
        "[" * 9999,
    ):
        pod["metadata"]["annotations"][names.STATUS] = forged
        kept = strip(pod)
        assert kept["spec"] == pod["spec"]


def test_our_names_without_our_record_are_the_users_own() -> None:
    once = admit(make_pod(), make_view([make_policy()]))
    del once["metadata"]["annotations"][names.STATUS]
    assert (read_status(admit(once, make_view([make_policy()]))) or {})["reason"] == "NameTaken"


def test_a_cluster_that_chooses_users_is_given_none() -> None:
    plan = make_plan()
    pod = inject(
        make_pod(), Plan(plan.policy, InjectionSettings("s", "e", user=None), plan.target, True, "llm", "w")
    )
    for container in pod["spec"]["initContainers"]:
        assert "runAsUser" not in container["securityContext"]


def test_the_secret_wins_over_the_url_and_may_be_absent() -> None:
    plan = make_plan()
    with_secret = InjectionSettings("s", "e", redis_url="redis://a", redis_secret="redis")  # noqa: S106 - a name
    pod = inject(make_pod(), Plan(plan.policy, with_secret, plan.target, False, "llm", "w"))
    env = {e["name"]: e for e in pod["spec"]["containers"][1]["env"]}
    assert env["TRAIL_REDIS_URL"] == {
        "name": "TRAIL_REDIS_URL",
        "valueFrom": {"secretKeyRef": {"name": "redis", "key": "url", "optional": True}},
    }
    assert "redis://" not in json.dumps(pod)


def test_sidecars_of_the_embedded_redis_have_a_user_of_their_workload() -> None:
    key = "0123456789abcdef" * 4
    settings = InjectionSettings("s", "e", redis_url="redis://trail-redis:6379/0", redis_key=key)
    urls = {}
    for name in ("llama", "chat"):
        pod = make_pod()
        pod["metadata"]["name"] = name
        after = admit(pod, make_view([make_policy()], settings=settings))
        assert key not in json.dumps(after)
        (sidecar,) = (c for c in after["spec"]["initContainers"] if c["name"] == names.SIDECAR)
        urls[name] = next(e["value"] for e in sidecar["env"] if e["name"] == "TRAIL_REDIS_URL")
        assert urls[name] == with_user("redis://trail-redis:6379/0", key, sidecar_user(f"llm/pod/{name}"))
    assert urls["llama"] != urls["chat"]


def test_vllm_traces_where_the_sidecar_does_unless_it_says_otherwise() -> None:
    """Only where vLLM traces does it hand a client's trace on, and the sidecar's spans join it."""
    plan = make_plan(telemetry={"otlpEndpoint": "http://collector:4317", "sampleRatio": 0.25})

    def environment(pod: dict[str, Any]) -> dict[str, str]:
        return {
            entry["name"]: entry.get("value") for entry in inject(pod, plan)["spec"]["containers"][0]["env"]
        }

    found = environment(make_pod())
    assert found["TRAIL_OTLP_ENDPOINT"] == "http://collector:4317"
    assert found["TRAIL_TRACE_RATIO"] == "0.25"
    mine = make_pod()
    mine["spec"]["containers"][0]["env"] = [{"name": "TRAIL_OTLP_ENDPOINT", "value": "http://mine:4317"}]
    assert environment(mine)["TRAIL_OTLP_ENDPOINT"] == "http://mine:4317"
    assert strip(inject(mine, plan)) == mine
    bare = {entry["name"] for entry in inject(make_pod(), make_plan())["spec"]["containers"][0]["env"]}
    assert not {"TRAIL_OTLP_ENDPOINT", "TRAIL_TRACE_RATIO"} & bare
