"""Policy names: every arm of the benchmark parses, and what makes no sense is refused by name."""

import pytest

from trail.policy.spec import POLICY_NAMES, PolicySpec, parse_policy


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
    ],
)
def test_c_is_read_from_the_name(text: str, name: str, c: float) -> None:
    assert parse_policy(text) == PolicySpec(name=name, c=c)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fcfs-c0.5", "takes no c"),
        ("sjf-c0", "takes no c"),
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


def test_only_fcfs_leaves_the_order_and_only_size_based_ones_preempt() -> None:
    assert {name for name in POLICY_NAMES if PolicySpec(name=name).orders} == set(POLICY_NAMES) - {"fcfs"}
    assert {name for name in POLICY_NAMES if PolicySpec(name=name).preempts} == {
        "trail",
        "trail-prompt",
        "oracle",
    }
