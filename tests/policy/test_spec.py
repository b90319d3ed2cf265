"""Policy names: every arm of the benchmark parses, and what makes no sense is refused by name."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.policy.ranks import Terms
from trail.policy.spec import POLICY_NAMES, SIZES, PolicySpec, parse_policy


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_name_parses_to_itself(name: str) -> None:
    assert parse_policy(name) == PolicySpec(name=name)


@pytest.mark.parametrize(
    ("text", "name", "c"),
    [
        ("trail-c0.2", "trail", 0.2),
        ("trail-c0", "trail", 0.0),
        ("oracle-c1", "oracle", 1.0),
        ("trail-prompt-c0.5", "trail-prompt", 0.5),
        ("adaptive-c0", "adaptive", 0.0),
    ],
)
def test_c_is_read_from_the_name(text: str, name: str, c: float) -> None:
    assert parse_policy(text) == PolicySpec(name=name, c=c)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fcfs-c0.5", "takes no c"),
        ("sjf-c0", "takes no c"),
        ("mlfq-c0", "takes no c"),
        ("trail-k1", "takes no k"),
        ("sjf-ratio2", "takes no ratio"),
        ("fcfs-limit1", "takes no limit"),
        ("adaptive-k1-k2", "kappa twice"),
        ("adaptive-k-1", "'k' is none of cC, kKAPPA"),
        ("adaptive-limit1.5", "'1.5' is no number; write limit as in adaptive-limit1"),
        ("adaptive-ratio0.5", "at least 1"),
        ("adaptive-reserveinf", "'reserveinf' is none of"),
        ("adaptive-k2-", "'' is none of"),
        ("oracle-gittins", "cannot be gittins"),
        ("trail-c1.5", r"\[0, 1\]"),
        ("trail-c0.2.1", "0.2.1"),
        ("trial", "trail-prompt"),
        ("trail-cnan", "unknown policy"),
        ("", "unknown policy"),
    ],
)
def test_a_wrong_name_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_policy(text)


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="c is nan"):
        PolicySpec(c=float("nan"))
    with pytest.raises(ValueError, match="kv_reserve_tokens is inf"):
        PolicySpec(kv_reserve_tokens=float("inf"))
    with pytest.raises(ValueError, match="kappa is nan"):
        PolicySpec("adaptive", kappa=float("nan"))
    with pytest.raises(ValueError, match="preempt_ratio is inf"):
        PolicySpec("adaptive", preempt_ratio=float("inf"))
    with pytest.raises(ValueError, match="size is 'mean'; choose one of point, gittins"):
        PolicySpec("adaptive", size="mean")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("adaptive", {}),
        ("adaptive-k2", {"kappa": 2.0}),
        ("adaptive-kinf", {"kappa": math.inf}),
        ("adaptive-c0.5-k0.5", {"c": 0.5, "kappa": 0.5}),
        ("adaptive-ratio3-limit2-reserve32", {
            "preempt_ratio": 3.0, "max_preemptions": 2, "kv_reserve_tokens": 32.0,
        }),
        ("adaptive-limitoff-reserveoff-gittins", {
            "max_preemptions": -1, "kv_reserve_tokens": -1.0, "size": "gittins",
        }),
    ],
)  # fmt: skip
def test_adaptive_has_defaults_of_its_own_and_takes_every_parameter(
    text: str, changed: dict[str, float]
) -> None:
    own = {"c": 0.0, "kv_reserve_tokens": 16.0, "kappa": 1.0, "preempt_ratio": 2.0, "max_preemptions": 1}
    spec = parse_policy(text)
    assert vars(spec) == {"name": "adaptive", "size": "point", "shadow": False, **own, **changed}
    assert spec.text == text


def test_the_reserve_can_be_asked_of_every_policy() -> None:
    for name in POLICY_NAMES:
        assert parse_policy(f"{name}-reserve8").kv_reserve_tokens == 8.0


def test_in_shadow_the_engine_keeps_its_order() -> None:
    spec = parse_policy("adaptive-k2-shadow")
    assert spec.shadow
    assert (spec.orders, spec.preempts, spec.cuts_off, spec.boosts) == (False, False, True, True)
    terms = Terms.of(spec, mean_initial=9.0)
    assert (terms.order, terms.preempt, terms.kv_reserve_tokens) == (False, False, -1.0)


specs = st.builds(
    PolicySpec,
    st.sampled_from(POLICY_NAMES),
    shadow=st.booleans(),
    kv_reserve_tokens=st.sampled_from([-1.0, 0.0, 16.0]),
    preempt_ratio=st.just(1.0),
)
adaptive_specs = st.builds(
    PolicySpec,
    st.just("adaptive"),
    c=st.sampled_from([0.0, 0.25, 1.0]),
    kappa=st.sampled_from([0.0, 0.5, 1.0, math.inf]),
    preempt_ratio=st.sampled_from([1.0, 2.5]),
    max_preemptions=st.sampled_from([-1, 0, 3]),
    kv_reserve_tokens=st.sampled_from([-1.0, 4.0, 16.0]),
    size=st.sampled_from(SIZES),
)


@given(st.one_of(specs, adaptive_specs))
def test_a_policys_text_parses_to_it(spec: PolicySpec) -> None:
    assert parse_policy(spec.text) == spec


@pytest.mark.parametrize("name", POLICY_NAMES)
@pytest.mark.parametrize("c", [0.0, 0.5])
@pytest.mark.parametrize("shadow", [False, True])
def test_who_never_gives_way_is_protected_from_the_first_token(name: str, c: float, shadow: bool) -> None:
    spec = PolicySpec(name, c=c, shadow=shadow)
    assert spec.gives_way == (PolicySpec(name, c=c).preempts and not (spec.cuts_off and c == 0.0))


def test_without_a_boost_adaptive_preempts_nobody() -> None:
    assert not PolicySpec("adaptive", kappa=0.0).preempts
    assert PolicySpec("adaptive", kappa=0.1).preempts


def test_only_fcfs_leaves_the_order_and_only_size_based_ones_preempt() -> None:
    assert {name for name in POLICY_NAMES if PolicySpec(name=name).orders} == set(POLICY_NAMES) - {"fcfs"}
    assert {name for name in POLICY_NAMES if PolicySpec(name=name).preempts} == {
        "trail",
        "trail-prompt",
        "oracle",
        "mlfq",
        "adaptive",
    }
