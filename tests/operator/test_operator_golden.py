"""Pods as they are found in the world, before and after the webhook, for new servers and for old ones."""

from collections.abc import Mapping
from typing import Any

import kubernetes_validate
import pytest
from operator_kit import GOLDEN, VARIANTS, admit, after_webhook, golden_cases, golden_view, load_documents

from trail_operator import names
from trail_operator.admission.inject import read_status, strip

SERVERS = {"injected": ("1.29", "1.37"), "injected-old": ("1.25", "1.37")}
SKIPPED = {
    "host-network": "HostNetwork",
    "job": "RunsToCompletion",
    "no-vllm": "NoVllmContainer",
    "several-vllm": "SeveralVllmContainers",
    "python-path-from-source": "PythonPathNotExtendable",
    "opted-out": "OptedOut",
}
UNTOUCHED = {"unasked"}


def pod_of(case: str) -> dict[str, Any]:
    (pod,) = load_documents(GOLDEN / f"{case}.pod.yaml")
    return pod


def valid(pod: Mapping[str, Any], version: str) -> bool:
    try:
        kubernetes_validate.validate(dict(pod), version, strict=True)
    except kubernetes_validate.ValidationError:
        return False
    return True


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", golden_cases())
def test_the_webhook_makes_the_expected_pod(case: str, variant: str, pytestconfig: pytest.Config) -> None:
    file, made = GOLDEN / f"{case}.{variant}.yaml", after_webhook(case, native=VARIANTS[variant])
    if pytestconfig.getoption("--write-golden"):
        file.write_text(made)
    assert file.read_text() == made


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", golden_cases())
def test_the_expected_pod_is_valid_under_the_schema_of_its_servers(case: str, variant: str) -> None:
    (pod,) = load_documents(GOLDEN / f"{case}.{variant}.yaml")
    # A user's own native sidecar is as unknown to an old server as ours would be.
    servers = [version for version in SERVERS[variant] if valid(pod_of(case), version)]
    assert servers
    for version in servers:
        kubernetes_validate.validate(pod, version, strict=True)


def test_an_old_schema_would_refuse_a_native_sidecar() -> None:
    (pod,) = load_documents(GOLDEN / "plain-args.injected.yaml")
    assert not valid(pod, "1.25")


@pytest.mark.parametrize("case", golden_cases())
def test_every_case_is_injected_skipped_or_untouched_as_it_should_be(case: str) -> None:
    after = admit(pod_of(case), golden_view(native=True))
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


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("case", golden_cases())
def test_taking_everything_out_again_gives_the_pod_back(case: str, native: bool) -> None:
    before = pod_of(case)
    assert strip(admit(before, golden_view(native=native))) == strip(before)


@pytest.mark.parametrize("case", golden_cases())
def test_the_users_containers_keep_image_command_probes_and_ports(case: str) -> None:
    before, after = pod_of(case), admit(pod_of(case), golden_view(native=True))
    for part in ("containers", "initContainers"):
        mine = {c["name"]: c for c in after["spec"].get(part, ()) if c["name"] not in names.CONTAINERS}
        theirs = {c["name"]: c for c in before["spec"].get(part, ()) if c["name"] not in names.CONTAINERS}
        assert list(mine) == list(theirs)
        for name, container in theirs.items():
            touched = {"env", "volumeMounts"}
            assert {k: v for k, v in mine[name].items() if k not in touched} == {
                k: v for k, v in container.items() if k not in touched
            }


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_of_class_guaranteed_keeps_its_class(variant: str) -> None:
    (pod,) = load_documents(GOLDEN / f"guaranteed.{variant}.yaml")
    for container in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= set(resources["limits"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", golden_cases())
def test_nothing_of_ours_gates_the_pod_or_asks_for_rights(case: str, variant: str) -> None:
    (pod,) = load_documents(GOLDEN / f"{case}.{variant}.yaml")
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
