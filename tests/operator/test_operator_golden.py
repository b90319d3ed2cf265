"""Pods as they are found in the world, before and after the webhook, for new servers and for old ones."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import kubernetes_validate
import pytest
import yaml
from operator_kit import GOLDEN, admit, golden_cases, golden_view, load_documents

from trail_operator import names
from trail_operator.admission.inject import read_status, strip

SERVERS = {True: ("1.29", "1.37"), False: ("1.25", "1.37")}
"""Schemas that a pod must be valid under, by whether its servers know native sidecars."""
OLD = ("plain-args", "kserve", "restricted")
"""Cases with a file for old servers as well; what the others become follows from the file for new servers.
The three have one container of the user's, an init container before ours, and containers of few rights."""
SKIPPED = {
    "host-network": "HostNetwork",
    "job": "RunsToCompletion",
    "no-vllm": "NoVllmContainer",
    "several-vllm": "SeveralVllmContainers",
    "python-path-from-source": "PythonPathNotExtendable",
    "opted-out": "OptedOut",
}
UNTOUCHED = {"unasked"}
SAME = {"already-injected": "plain-args"}
"""A pod that an earlier version injected becomes what the pod without it becomes."""
FILES = [(case, "injected") for case in golden_cases() if case not in SAME]
FILES += [(case, "injected-old") for case in OLD]
BOTH = pytest.mark.parametrize("native", [True, False])
ALL = pytest.mark.parametrize("case", golden_cases())


def pod_of(case: str, kind: str = "pod") -> dict[str, Any]:
    (pod,) = load_documents(GOLDEN / f"{case}.{kind}.yaml")
    return pod


def after_webhook(case: str, *, native: bool = True) -> dict[str, Any]:
    return admit(pod_of(case), golden_view(native=native))


def as_on_old_servers(pod: dict[str, Any]) -> dict[str, Any]:
    """An expected pod of new servers, with the sidecar as the last container instead of a native one."""
    out = copy.deepcopy(pod)
    status = read_status(pod)
    if status is not None and status["injected"]:
        sidecar = out["spec"]["initContainers"].pop()
        assert (sidecar["name"], sidecar.pop("restartPolicy")) == (names.SIDECAR, "Always")
        out["spec"]["containers"].append(sidecar)
        text = json.dumps({**status, "native": False}, sort_keys=True, separators=(",", ":"))
        out["metadata"]["annotations"][names.STATUS] = text
    return out


def valid(pod: Mapping[str, Any], version: str) -> bool:
    try:
        kubernetes_validate.validate(dict(pod), version, strict=True)
    except kubernetes_validate.ValidationError:
        return False
    return True


@pytest.mark.parametrize(("case", "kind"), FILES)
def test_the_webhook_makes_the_expected_pod(case: str, kind: str, pytestconfig: pytest.Config) -> None:
    file, made = GOLDEN / f"{case}.{kind}.yaml", after_webhook(case, native=kind == "injected")
    text = yaml.safe_dump(made, sort_keys=False, width=110)
    if pytestconfig.getoption("--write-golden"):
        file.write_text(text)
    assert file.read_text() == text


@ALL
def test_on_old_servers_the_sidecar_is_the_last_container(case: str) -> None:
    expected = as_on_old_servers(pod_of(SAME.get(case, case), "injected"))
    assert after_webhook(case, native=False) == expected


@pytest.mark.parametrize(("case", "same"), SAME.items())
def test_an_earlier_injection_leaves_nothing_behind(case: str, same: str) -> None:
    assert after_webhook(case) == pod_of(same, "injected")


def test_no_golden_pod_is_left_over() -> None:
    kinds = {file.name for file in GOLDEN.glob("*.*.yaml")}
    assert kinds == {f"{case}.{kind}.yaml" for case, kind in FILES} | {
        f"{case}.pod.yaml" for case in golden_cases()
    }


@BOTH
@ALL
def test_the_expected_pod_is_valid_under_the_schema_of_its_servers(case: str, native: bool) -> None:
    # A user's own native sidecar is as unknown to an old server as ours would be.
    servers = [version for version in SERVERS[native] if valid(pod_of(case), version)]
    assert servers
    for version in servers:
        kubernetes_validate.validate(after_webhook(case, native=native), version, strict=True)


def test_an_old_schema_would_refuse_a_native_sidecar() -> None:
    assert not valid(after_webhook("plain-args"), "1.25")


@ALL
def test_every_case_is_injected_skipped_or_untouched_as_it_should_be(case: str) -> None:
    after = after_webhook(case)
    status = read_status(after)
    if case in UNTOUCHED:
        assert after == pod_of(case)
    elif case in SKIPPED:
        assert status is not None
        assert status["reason"] == SKIPPED[case]
        assert after["spec"] == pod_of(case)["spec"]
    else:
        assert status is not None
        assert status["injected"] is True
    assert len(golden_cases()) - len(SKIPPED) - len(UNTOUCHED) >= 12


@BOTH
@ALL
def test_taking_everything_out_again_gives_the_pod_back(case: str, native: bool) -> None:
    assert strip(after_webhook(case, native=native)) == strip(pod_of(case))


@ALL
def test_the_users_containers_keep_image_command_probes_and_ports(case: str) -> None:
    before, after = pod_of(case), after_webhook(case)
    for part in ("containers", "initContainers"):
        mine = {c["name"]: c for c in after["spec"].get(part, ()) if c["name"] not in names.CONTAINERS}
        theirs = {c["name"]: c for c in before["spec"].get(part, ()) if c["name"] not in names.CONTAINERS}
        assert list(mine) == list(theirs)
        for name, container in theirs.items():
            touched = {"env", "volumeMounts"}
            assert {k: v for k, v in mine[name].items() if k not in touched} == {
                k: v for k, v in container.items() if k not in touched
            }


@BOTH
def test_a_pod_of_class_guaranteed_keeps_its_class(native: bool) -> None:
    pod = after_webhook("guaranteed", native=native)
    for container in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= set(resources["limits"])


@BOTH
@ALL
def test_nothing_of_ours_gates_the_pod_or_asks_for_rights(case: str, native: bool) -> None:
    pod = after_webhook(case, native=native)
    every = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    for container in (c for c in every if c["name"] in names.CONTAINERS):
        assert not {"readinessProbe", "startupProbe", "livenessProbe", "lifecycle"} & set(container)
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        if container["name"] != names.SIDECAR:
            assert container["command"][2].endswith("exit 0")
