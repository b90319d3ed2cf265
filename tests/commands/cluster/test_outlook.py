"""Whether a withdrawal still holds, as far as the operator's settings can be seen, and who says so."""

import json
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from cluster_kit import (
    DEPLOYMENTS,
    OPERATOR,
    PODS,
    POLICIES,
    Trail,
    inject_pod,
    make_deployment,
    make_pod,
)
from fake_api import FakeApi
from hypothesis import given
from hypothesis import strategies as st
from operator_kit import make_policy

from trail.commands.cluster.outlook import injection_settings
from trail_operator.admission.confighash import injection_hash
from trail_operator.policy.resource import parse_policy
from trail_operator.settings import InjectionSettings

Object = dict[str, Any]

CHART = Path(__file__).parents[3] / "charts/trail"
WORKLOAD = "llm/deployment/llama"
PLAIN = [
    {"name": "TRAIL_OPERATOR_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    {"name": "TRAIL_OPERATOR_SIDECAR_IMAGE", "value": "s:1"},
    {"name": "TRAIL_OPERATOR_ENGINE_IMAGE", "value": "e:1"},
]
SETTINGS = InjectionSettings("s:1", "e:1")
SECRET = {
    "name": "TRAIL_OPERATOR_SIDECAR_REDIS_KEY",
    "valueFrom": {"secretKeyRef": {"name": "r", "key": "k"}},
}


def digest(policy: Object) -> str:
    return injection_hash(parse_policy(policy), SETTINGS)


# ---- the operator's settings -----------------------------------------------------------------------


def containers(values: Object) -> list[Object]:
    """The operator's containers as the chart has them."""
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values, name="trail", namespace="trail-system")
    text = next(text for name, text in texts.items() if name.endswith("templates/deployment.yaml"))
    found: list[Object] = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    return found


def test_settings_of_the_chart_are_seen_where_no_secret_is_among_them() -> None:
    values = {"redis": {"mode": "external", "external": {"url": "redis://r:6379/0"}},
              "injection": {"user": "cluster", "group": 7}, "images": {"pullPolicy": "Always"}}  # fmt: skip
    found = injection_settings(containers(values))
    assert found is not None
    assert (found.user, found.group, found.pull_policy) == (None, 7, "Always")
    assert (found.redis_url, found.redis_key) == ("redis://r:6379/0", "")
    assert "trail-sidecar" in found.sidecar_image
    assert "trail-engine" in found.engine_image


def test_settings_with_the_key_of_the_embedded_redis_are_not_known() -> None:
    assert injection_settings(containers({})) is None


CHANGES: dict[str, tuple[Object, bool]] = {
    "plain": ({}, True),
    "the operator's own address of Redis": (
        {"env": [*PLAIN, {"name": "TRAIL_OPERATOR_SIDECAR_REDIS_URL", "value": "redis://r"},
                 {"name": "TRAIL_OPERATOR_REDIS_URL", "valueFrom": {}}]}, True),
    "what sidecars get out of a Secret": (
        {"env": [*PLAIN, {"name": "TRAIL_OPERATOR_REDIS_URL", "valueFrom": {}}]}, False),
    "key": ({"env": [*PLAIN, SECRET]}, False),
    "a reference": ({"env": [*PLAIN, {"name": "TRAIL_OPERATOR_GROUP", "value": "$(GROUP)"}]}, False),
    "envFrom": ({"envFrom": [{"configMapRef": {"name": "more"}}]}, False),
    "arguments": ({"args": ["--group", "5"]}, False),
    "no number": ({"env": [*PLAIN, {"name": "TRAIL_OPERATOR_GROUP", "value": "wheel"}]}, False),
    "no images": ({"env": []}, False),
    "another name": ({"name": "main"}, False),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_settings_are_known_where_all_of_them_can_be_seen(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, known = CHANGES[what]
    found = injection_settings([{"name": "operator", "env": PLAIN, **change}])
    assert (found is not None) == known
    assert capsys.readouterr().err == ""


@given(st.dictionaries(st.sampled_from(["GROUP", "USER", "IMAGE_PULL_POLICY", "LEASE"]), st.text()))
def test_settings_are_read_whatever_stands_there(texts: dict[str, str]) -> None:
    env = [*PLAIN, *({"name": f"TRAIL_OPERATOR_{name}", "value": text} for name, text in texts.items())]
    injection_settings([{"name": "operator", "env": env}])


# ---- whether a withdrawal holds --------------------------------------------------------------------


def item(of: str) -> Object:
    return {"workload": WORKLOAD, "hash": of, "reason": "ImagePullFailed", "message": "no such image",
            "since": "2026-01-01T00:00:00Z"}  # fmt: skip


def policy(name: str = "default", generation: int = 1, **status: Any) -> Object:
    out = make_policy(name)
    return {**out, "metadata": {**out["metadata"], "generation": generation}, "status": status}


NOT_ME = digest(make_policy(everySteps=9))
"""Of an injection as the policy was before."""
HOLDS: dict[str, tuple[list[Object], Object, bool]] = {
    "settings known, this injection": (PLAIN, policy(withdrawn=[item(digest(make_policy()))]), True),
    "settings known, another injection": (PLAIN, policy(withdrawn=[item(NOT_ME)]), False),
    "settings unknown": ([*PLAIN, SECRET], policy(withdrawn=[item(NOT_ME)]), True),
    "settings unknown, operator up to date": (
        [*PLAIN, SECRET], policy(generation=3, observedGeneration=3, withdrawn=[item(NOT_ME)]), True),
    "settings unknown, policy changed since": (
        [*PLAIN, SECRET], policy(generation=3, observedGeneration=2, withdrawn=[item(NOT_ME)]), True),
    "a policy that does not apply": (PLAIN, policy("other", withdrawn=[item("x")]), False),
    "of another workload": (PLAIN, policy(withdrawn=[item("x") | {"workload": "llm/deployment/b"}]), False),
    "nothing": (PLAIN, policy(), False),
}  # fmt: skip


@pytest.fixture
def llama(api: FakeApi) -> Object:
    """The Deployment, which asks, and a pod of it that came up bare."""
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    api.put(f"{PODS}/llama-5f-x", make_pod(deployment))
    return deployment


def arrange(api: FakeApi, what: str) -> bool:
    env, obj, holds = HOLDS[what]
    api.objects[OPERATOR]["spec"]["template"]["spec"]["containers"] = [{"name": "operator", "env": env}]
    api.put(f"{POLICIES}/{obj['metadata']['name']}", obj)
    return holds


@pytest.mark.parametrize("what", HOLDS)
def test_a_pod_is_explained_as_it_would_be_made_now(
    api: FakeApi, llama: Object, trail: Trail, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    holds = arrange(api, what)
    assert trail("explain-injection", "llama-5f-x") == 1
    out = capsys.readouterr().out
    cause = "ImagePullFailed: no such image, as of 2026-01-01T00:00:00Z"
    assert (f"made anew now, it would not be injected (Withdrawn): {cause}" in out) == holds
    assert ("made anew now, it would be injected" in out) == (not holds)
    assert ("TRAIL was taken back from llm/deployment/llama" in out) == holds
    assert ("may try again by itself" in out) == (what == "settings unknown, policy changed since")


@pytest.mark.parametrize("what", HOLDS)
def test_enable_says_what_explain_says(
    api: FakeApi, llama: Object, trail: Trail, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    holds = arrange(api, what)
    assert trail("enable", "deploy/llama", "--no-wait") == int(holds)
    assert ("nothing would be injected (Withdrawn)" in capsys.readouterr().out) == holds


@pytest.mark.parametrize("what", [name for name in HOLDS if name != "a policy that does not apply"])
def test_the_status_shows_it(
    api: FakeApi, llama: Object, trail: Trail, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    holds = arrange(api, what)
    assert trail("status", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["workloads"]
    assert row["skipped"] == ("Withdrawn" if holds else None)


def test_a_withdrawal_of_a_policy_elsewhere_is_found(
    api: FakeApi, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "shared/fast"})
    api.put(f"{DEPLOYMENTS}/llama", deployment)
    api.put(f"{PODS}/llama-5f-x", make_pod(deployment))
    obj = policy("fast", withdrawn=[item("x")])
    obj["metadata"]["namespace"] = "shared"
    api.put(f"{POLICIES}/fast".replace("/llm/", "/shared/"), obj)
    assert trail("explain-injection", "llama-5f-x") == 1
    assert "not be injected (Withdrawn)" in capsys.readouterr().out


def test_an_injected_pod_hears_that_its_successor_will_be_bare(
    api: FakeApi, llama: Object, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(f"{PODS}/llama-5f-x", inject_pod(make_pod(llama), make_policy()))
    arrange(api, "settings unknown")
    assert trail("explain-injection", "llama-5f-x") == 0
    out = capsys.readouterr().out
    assert "was injected by TrailPolicy llm/default" in out
    assert "a pod that is made anew stays without TRAIL" in out
