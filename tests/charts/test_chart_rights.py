"""The chart's roles against what the operator's code asks the API server for."""

import json
import re

import pytest
from chart_kit import CASES, TRAIL, Object, render

OPERATOR = TRAIL.parents[1] / "operator/trail_operator"

# What the code does: verb, group, resource, and whether a right on one named object is enough.
NEEDED = [
    ("list", "trail.dev", "trailpolicies", False),
    ("watch", "trail.dev", "trailpolicies", False),
    ("patch", "trail.dev", "trailpolicies/status", False),
    ("list", "", "namespaces", False),
    ("watch", "", "namespaces", False),
    *[(verb, "apps", kind, False) for kind in ("deployments", "statefulsets")
      for verb in ("get", "list", "watch", "patch")],
    ("list", "", "pods", False),
    ("watch", "", "pods", False),
    ("create", "", "pods/eviction", False),
    ("create", "", "events", False),
    ("list", "", "nodes", False),
    ("get", "coordination.k8s.io", "leases", True),
    ("update", "coordination.k8s.io", "leases", True),
    ("create", "coordination.k8s.io", "leases", False),
    ("get", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", True),
    ("patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", True),
    ("delete", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", True),
    ("get", "", "secrets", True),
    ("update", "", "secrets", True),
]  # fmt: skip


def granted(objects: list[Object]) -> set[tuple[str, str, str, bool]]:
    roles = [
        o
        for o in objects
        if o["kind"] in ("Role", "ClusterRole") and not re.search("-(view|edit)$", o["metadata"]["name"])
    ]
    return {
        (verb, group, resource, "resourceNames" in rule)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_chart_grants_what_is_needed_and_no_more() -> None:
    assert granted(render()) == set(NEEDED)


def secrets_granted(objects: list[Object]) -> list[str]:
    rules = [rule for o in objects if o["kind"] in ("Role", "ClusterRole") for rule in o["rules"]]
    return [name for rule in rules if "secrets" in rule["resources"] for name in rule["resourceNames"]]


def test_only_secrets_that_the_operator_fills_may_be_read() -> None:
    """The certificate's where it is generated, that of Redis where it is embedded; in its own namespace."""
    assert secrets_granted(render()) == ["trail-operator-certificate", "trail-redis-access"]
    assert secrets_granted(render(CASES["cert-manager"])) == ["trail-redis-access"]
    assert secrets_granted(render(CASES["external-redis"])) == ["trail-operator-certificate"]
    assert secrets_granted(render({**CASES["cert-manager"], **CASES["external-redis"]})) == []


def test_removal_has_its_rights_whether_the_webhook_is_on_or_not() -> None:
    """Without the right to look for it, what is not there would be a refusal, and the removal would fail."""
    hook = ("delete", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", True)
    assert hook in granted(render({"webhook": {"enabled": False}}))
    assert hook in granted(render(CASES["own-certificate"]))


@pytest.mark.parametrize("case", CASES)
def test_no_right_is_a_wildcard_or_writes_workloads_spec_beyond_patch(case: str) -> None:
    text = json.dumps([o for o in render(CASES[case]) if o["kind"] in ("Role", "ClusterRole")])
    assert '"*"' not in text
    for resource in ("pods", "deployments", "statefulsets", "namespaces"):
        verbs = {verb for verb, _, found, _ in granted(render(CASES[case])) if found == resource}
        assert not verbs & {"create", "update", "delete", "deletecollection"}


def test_every_resource_in_the_code_has_a_right() -> None:
    """A path in the operator's code that no right speaks of would be a refusal in the cluster."""
    code = "\n".join(file.read_text() for file in OPERATOR.rglob("*.py"))
    named = set(re.findall(r'path\(\s*(?:"[^"]+"|APPS|names\.API_VERSION|API_VERSION),\s*"([a-z]+)"', code))
    watched = set(re.findall(r'watch\("[a-z]*", "v1", "([a-z]+)"', code))
    assert {"events", "nodes", "secrets", "pods", "namespaces"} <= named
    assert {"pods", "namespaces", "deployments", "statefulsets"} == watched
    allowed = {resource.split("/")[0] for _, _, resource, _ in NEEDED}
    assert named | watched <= allowed
    for resource in watched:
        verbs = {verb for verb, _, found, _ in NEEDED if found == resource}
        assert {"list", "watch"} <= verbs


def test_the_names_in_the_roles_are_the_objects_names() -> None:
    objects = render()
    by_resource = {
        resource: rule["resourceNames"]
        for role in objects
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        if "resourceNames" in rule
        for resource in rule["resources"]
    }
    for resource, kind in {
        "leases": "Lease",
        "secrets": "Secret",
        "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
    }.items():
        assert by_resource[resource] == [o["metadata"]["name"] for o in objects if o["kind"] == kind]
