"""Removal: the operator stops before the stamps go."""

import pytest
from cluster_kit import DEPLOYMENTS, HOOKS, OPERATOR, make_deployment
from fake_api import FakeApi

from trail_operator.cluster_api.kube import Kube, KubeError
from trail_operator.jobs.uninstall import uninstall

STAMPS = {"trail.dev/workload-inject": "enabled", "trail.dev/config-hash": "0123456789abcdef"}


def stamp(api: FakeApi) -> None:
    deployment = make_deployment(**{"trail.dev/inject": "enabled"})
    deployment["spec"]["template"]["metadata"]["annotations"] = {"mine": "stays", **STAMPS}
    api.put(f"{DEPLOYMENTS}/llama", deployment)


async def test_everything_is_taken_out_in_the_right_order(api: FakeApi) -> None:
    stamp(api)
    async with await Kube.connect() as kube:
        assert await uninstall(kube, "trail-system", "trail-operator", "trail") == 1
        assert await uninstall(kube, "trail-system", "trail-operator", "trail") == 0
    assert api.objects[OPERATOR]["spec"]["replicas"] == 0
    assert f"{HOOKS}/trail" not in api.objects
    deployment = api.objects[f"{DEPLOYMENTS}/llama"]
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"mine": "stays"}
    assert deployment["metadata"]["annotations"] == {"trail.dev/inject": "enabled"}
    writes = [place for method, place in api.calls if method in ("PATCH", "DELETE")]
    assert writes[:3] == [OPERATOR, f"{HOOKS}/trail", f"{DEPLOYMENTS}/llama"]


async def test_it_waits_for_the_operators_pods(api: FakeApi) -> None:
    stamp(api)
    labels = api.objects[OPERATOR]["metadata"]["labels"]
    api.put("/api/v1/namespaces/trail-system/pods/o", {"metadata": {"name": "o", "labels": labels}})
    async with await Kube.connect() as kube:
        with pytest.raises(TimeoutError, match=r"still run after 0 s \(o\): delete them"):
            await uninstall(kube, "trail-system", "trail-operator", "trail", wait_s=0.0)
    assert f"{HOOKS}/trail" in api.objects


async def test_a_refusal_is_told(api: FakeApi) -> None:
    api.refused.add(("PATCH", "deployments/trail-operator"))
    async with await Kube.connect() as kube:
        with pytest.raises(KubeError, match="403"):
            await uninstall(kube, "trail-system", "trail-operator", "trail")
