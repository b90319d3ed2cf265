"""What our containers ask of a node, by what their pod asks."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail_operator.admission.resources import (
    LEAST_MILLIS,
    MOST_MILLIS,
    SHARE,
    copy_resources,
    cpu_request,
    guaranteed,
    quantity,
    sidecar_resources,
)


def container(**resources: Any) -> dict[str, Any]:
    return {"name": "vllm", "resources": resources} if resources else {"name": "vllm"}


def pod(*containers: dict[str, Any], init: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), **({"initContainers": init} if init else {})}}


@pytest.mark.parametrize(
    ("resources", "request_"),
    [
        ({}, "1m"),
        ({"requests": {"memory": "8Gi"}}, "1m"),
        ({"requests": {"cpu": "10m"}}, "1m"),
        ({"requests": {"cpu": "500m"}}, "25m"),
        ({"requests": {"cpu": "1.5"}}, "75m"),
        ({"requests": {"cpu": 16}}, "100m"),
        ({"limits": {"cpu": "1"}}, "50m"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "64"}}, "50m"),
    ],
)
def test_the_sidecar_asks_for_a_small_part_of_what_vllm_asks(resources: Any, request_: str) -> None:
    vllm = container(**resources)
    found = sidecar_resources(pod(vllm), vllm)
    assert found["requests"]["cpu"] == request_
    assert found["limits"]["cpu"] == "1"
    assert found["requests"]["memory"] == found["limits"]["memory"]


@given(millis=st.integers(0, 512_000))
def test_its_weight_beside_vllm_is_a_twentieth_or_the_least_there_is(millis: int) -> None:
    vllm = container(requests={"cpu": f"{millis}m"})
    found = quantity(sidecar_resources(pod(vllm), vllm)["requests"]["cpu"])
    assert found is not None
    assert Decimal(LEAST_MILLIS) / 1000 <= found <= Decimal(MOST_MILLIS) / 1000
    assert found <= max(Decimal(millis) / 1000 / SHARE, Decimal(LEAST_MILLIS) / 1000)


FULL = {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}}


@pytest.mark.parametrize(
    ("found", "is_one"),
    [
        (pod(container(**FULL)), True),
        (pod(container(limits=FULL["limits"])), True),
        (pod(container(**FULL), init=[container(**FULL)]), True),
        (pod(container(**FULL), init=[container()]), False),
        (pod(container(**FULL), container()), False),
        (pod(container(requests=FULL["requests"])), False),
        (pod(container(requests={"cpu": "2", "memory": "8Gi"}, limits=FULL["limits"])), False),
        (pod(container()), False),
        ({"spec": {}}, False),
        (
            pod(
                container(
                    requests={"cpu": "2000m", "memory": "4294967296"}, limits={"cpu": 2, "memory": "4Gi"}
                )
            ),
            True,
        ),
        (pod(container(limits={"cpu": "0", "memory": "8Gi"})), False),
    ],
)
def test_a_pod_is_of_class_guaranteed_where_every_request_is_its_limit(found: Any, is_one: bool) -> None:
    assert guaranteed(found) is is_one
    vllm = container()
    for resources in (sidecar_resources(found, vllm), copy_resources(found)):
        assert (resources["requests"] == resources["limits"]) is is_one


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"),
        ("2", "2"),
        (3, "3"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("2k", "2000"),
        ("1n", "1e-9"),
        ("1u", "1e-6"),
        ("1e3", "1000"),
        ("1E-1", "0.1"),
        ("4Gi", "4294967296"),
        ("1Ki", "1024"),
        ("1M", "1e6"),
        ("2E", "2e18"),
        ("1Ei", str(2**60)),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: Any, value: str) -> None:
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "m", "-1", "1e3x", "1e", "1mi", "lots", "1 ", None])
def test_what_is_no_quantity_counts_as_none(text: Any) -> None:
    assert quantity(text) is None
    assert cpu_request(container(requests={"cpu": text} if text is not None else {})) == 0
