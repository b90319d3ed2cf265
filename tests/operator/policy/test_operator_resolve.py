"""Which policy wins, and what a template is stamped with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_kit import DEFAULT, make_policy, make_view

from trail_operator import names
from trail_operator.admission.confighash import policy_hash
from trail_operator.admission.stamp import Stamp, desired, patch
from trail_operator.cluster_api.version import native_sidecars, parse_version
from trail_operator.policy.resolve import Asked, resolve
from trail_operator.policy.resource import TrailPolicy, parse_policy, parse_selector
from trail_operator.reasons import Reason, Skip

SELECTS = {"workloads": {"selector": {"matchLabels": {"app": "llama"}}}}


def aged(obj: dict[str, Any], created: str) -> dict[str, Any]:
    obj["metadata"]["creationTimestamp"] = created
    return obj


POLICIES = make_view([
    make_policy("cluster", "trail-system"),
    make_policy("default", "llm"),
    make_policy("named", "llm"),
    aged(make_policy("young", "llm", **SELECTS), "2026-03-01T00:00:00Z"),
    aged(make_policy("old", "llm", **SELECTS), "2026-02-01T00:00:00Z"),
    make_policy("broken", "llm", c={"min": 2}),
    aged(make_policy("broken", "other", everySteps=0, **SELECTS), "2025-01-01T00:00:00Z"),
]).policies  # fmt: skip
LLAMA = {"app": "llama"}


@pytest.mark.parametrize(
    ("asked", "wins"),
    [
        (Asked("llm", {}), None),
        (Asked("llm", {}, pod="enabled"), "llm/default"),
        (Asked("llm", {}, pod="True"), "llm/default"),
        (Asked("llm", {}, workload="enabled"), "llm/default"),
        (Asked("llm", {}, pod="named", workload="cluster"), "llm/named"),
        (Asked("llm", {}, workload="named"), "llm/named"),
        (Asked("llm", {}, pod="trail-system/cluster"), "trail-system/cluster"),
        (Asked("empty", {}, pod="llm/named"), "llm/named"),
        (Asked("empty", {}, pod="enabled"), "trail-system/cluster"),
        (Asked("llm", LLAMA), "llm/old"),
        (Asked("llm", LLAMA, pod="enabled"), "llm/old"),
        (Asked("llm", LLAMA, pod="named"), "llm/named"),
        (Asked("elsewhere", LLAMA), None),
        (Asked("llm", {}, namespace_label="enabled"), "llm/default"),
        (Asked("empty", {}, namespace_label="enabled"), "trail-system/cluster"),
        (Asked("llm", {}, namespace_label="something"), None),
        (Asked("llm", {}, pod="disabled", workload="enabled"), Reason.OPTED_OUT),
        (Asked("llm", {}, pod="enabled", workload="disabled"), Reason.OPTED_OUT),
        (Asked("llm", LLAMA, namespace_label="disabled"), Reason.OPTED_OUT),
        (Asked("llm", {}, pod="named", namespace_label="false"), Reason.OPTED_OUT),
        (Asked("llm", {}, pod="missing"), Reason.POLICY_NOT_FOUND),
        (Asked("llm", {}, pod="Not A Name"), Reason.INVALID_ANNOTATION),
        (Asked("llm", {}, pod="a/b/c"), Reason.INVALID_ANNOTATION),
        (Asked("llm", {}, pod=""), Reason.INVALID_ANNOTATION),
        (Asked("llm", {}, pod="broken"), Reason.POLICY_INVALID),
        (Asked("other", LLAMA), Reason.POLICY_INVALID),
    ],
)
def test_what_wins(asked: Asked, wins: str | Reason | None) -> None:
    found = resolve(asked, POLICIES, DEFAULT)
    got = found.key if isinstance(found, TrailPolicy) else found.reason if isinstance(found, Skip) else None
    assert got == wins


def test_without_any_policy_the_annotation_is_answered_and_silence_is_not() -> None:
    found = resolve(Asked("empty", {}, pod="enabled"), POLICIES, None)
    assert isinstance(found, Skip)
    assert found.reason is Reason.NO_POLICY
    assert resolve(Asked("empty", {}), POLICIES, None) is None


TEXTS = st.one_of(
    st.none(), st.text(max_size=8), st.sampled_from(["enabled", "disabled", "named", "llm/named"])
)


@given(pod=TEXTS, workload=TEXTS, label=TEXTS)
def test_disabled_wins_over_all_and_nothing_raises(
    pod: str | None, workload: str | None, label: str | None
) -> None:
    asked = Asked("llm", LLAMA, pod, workload, label)
    found = resolve(asked, POLICIES, DEFAULT)
    if "disabled" in (pod, workload, label):
        assert isinstance(found, Skip)
        assert found.reason is Reason.OPTED_OUT


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": ""}}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        (
            {"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]},
            {"a": "1"},
            False,
        ),
    ],
)
def test_selectors_match_as_kubernetes_does(
    selector: dict[str, Any], labels: dict[str, str], matches: bool
) -> None:
    parsed = parse_selector(make_policy(workloads={"selector": selector}))
    assert parsed is not None
    assert parsed.matches(labels) is matches


POLICY = parse_policy(make_policy())
ON = Stamp("enabled", policy_hash(POLICY))
INVALID = Skip(Reason.POLICY_INVALID, "")
OUT = Skip(Reason.OPTED_OUT, "")


@pytest.mark.parametrize(
    ("annotation", "outcome", "present", "otherwise", "wanted"),
    [
        ("enabled", POLICY, Stamp(), None, ON),
        (None, POLICY, Stamp(), POLICY, Stamp(None, policy_hash(POLICY))),
        (None, None, ON, None, Stamp()),
        ("enabled", INVALID, ON, INVALID, ON),
        ("enabled", INVALID, Stamp(), INVALID, Stamp()),
        ("missing", Skip(Reason.POLICY_NOT_FOUND, ""), ON, None, Stamp()),
        ("disabled", OUT, ON, None, Stamp()),
        ("disabled", OUT, Stamp(), POLICY, Stamp("disabled")),
        ("enabled", OUT, ON, OUT, Stamp()),
    ],
)
def test_what_a_template_is_stamped_with(
    annotation: str | None, outcome: Any, present: Stamp, otherwise: Any, wanted: Stamp
) -> None:
    assert desired(annotation, outcome, present, otherwise) == wanted


def test_a_patch_touches_nothing_but_our_annotations_and_only_this_version() -> None:
    assert patch(ON, ON, "7") is None
    body = patch(Stamp(), ON, "7")
    assert body == {
        "metadata": {"resourceVersion": "7"},
        "spec": {"template": {"metadata": {"annotations": {
            names.STAMPED_INJECT: "enabled", names.STAMPED_HASH: policy_hash(POLICY)}}}},
    }  # fmt: skip
    back = patch(ON, Stamp(), "8")
    assert back is not None
    assert set(back["spec"]["template"]["metadata"]["annotations"].values()) == {None}


@pytest.mark.parametrize(
    ("server", "kubelets", "native"),
    [
        ("v1.28.9", ["v1.28.9"], False),
        ("v1.29.0", ["v1.29.0", "v1.29.3-gke.1"], True),
        ("v1.31.0", ["v1.31.0", "v1.28.4"], False),
        ("v1.31.0", None, False),
        ("v1.32.0", None, True),
        ("v1.29.0", ["rubbish"], False),
        ("rubbish", ["v1.29.0"], False),
        ("v1.30.1", [], True),
    ],
)
def test_native_sidecars_need_every_kubelet(server: str, kubelets: list[str] | None, native: bool) -> None:
    assert native_sidecars(parse_version(server), kubelets) is native
