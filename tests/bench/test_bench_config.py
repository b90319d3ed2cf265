"""The command line becomes one checked configuration; what contradicts itself is refused in a sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.bench.config import BenchConfig, parse_arms, parse_arrivals, parse_load
from trail.bench.plan import repeat_order

CONFIG = BenchConfig(
    model="m",
    predictor=None,
    arms=parse_arms("fcfs,trail-c0.2"),
    load=parse_load("1.3x"),
    arrivals=parse_arrivals("poisson"),
    prompts=None,
    requests=10,
    repeats=1,
    temperature=1.0,
    max_tokens=8,
    seed=0,
    capacity_requests=10,
    warmup_requests=0,
    stream_interval=1,
    request_timeout_s=1.0,
    start_timeout_s=1.0,
    vllm_args=(),
    out=Path("out"),
)


def test_arms_keep_their_order_and_only_fcfs_is_stock() -> None:
    arms = parse_arms("sjf, fcfs,trail-c0.2,oracle-c0")
    assert [a.name for a in arms] == ["sjf", "fcfs", "trail-c0.2", "oracle-c0"]
    assert [a.stock for a in arms] == [False, True, False, False]
    assert [a.needs_lengths for a in arms] == [False, False, False, True]
    assert arms[2].policy.c == 0.2


@pytest.mark.parametrize("text", ["", " , ", "fcfs,fcfs", "srpt", "trail-c2"])
def test_bad_arms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S+ \S+"):
        parse_arms(text)


@given(st.floats(0.01, 100))
def test_loads_are_relative_or_absolute(value: float) -> None:
    assert parse_load(f"{value}x").times_capacity == value
    assert parse_load(f"{value}").rate_per_s == value


@pytest.mark.parametrize("text", ["", "x", "0", "-1x", "nan", "infx", "fast"])
def test_bad_loads_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--load"):
        parse_load(text)


def test_arrivals_are_parsed_with_their_parameter() -> None:
    assert parse_arrivals("gamma:8").scv == 8
    assert parse_arrivals("trace:a:b.csv").trace == Path("a:b.csv")
    assert parse_arrivals("burst").kind == "burst"


@pytest.mark.parametrize("text", ["gamma", "gamma:0", "gamma:x", "trace", "trace:", "poisson:2", "often"])
def test_bad_arrivals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--arrivals"):
        parse_arrivals(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": 0}, "--requests"),
        ({"repeats": 0}, "--repeats"),
        ({"seed": -1}, "--seed"),
        ({"request_timeout_s": 0.0}, "--request-timeout"),
        ({"load": parse_load("trace")}, "--arrivals trace"),
        ({"arms": parse_arms("oracle")}, "another arm"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]  # a test's bag of changes


def test_capacity_is_measured_only_where_a_rate_depends_on_it() -> None:
    assert CONFIG.needs_capacity
    assert not replace(CONFIG, load=parse_load("3")).needs_capacity
    assert not replace(CONFIG, arrivals=parse_arrivals("burst")).needs_capacity


ARMS = "fcfs,sjf,trail-prompt,trail-c0,trail-c0.8,oracle"


@given(st.permutations(ARMS.split(",")), st.integers(0, 20))
def test_a_repeat_runs_every_arm_once_and_the_oracle_never_first(names: list[str], repeat: int) -> None:
    order = repeat_order(parse_arms(",".join(names)), repeat)
    assert sorted(a.name for a in order) == sorted(names)
    assert not order[0].needs_lengths
    assert order[0].stock or order[-1].stock, "the stock server's runs stay together"


def test_servers_alternate_so_that_repeats_meet_on_one_server() -> None:
    arms = parse_arms("fcfs,trail-c0,trail-c0.8")
    orders = [[a.name for a in repeat_order(arms, r)] for r in range(3)]
    assert orders == [
        ["fcfs", "trail-c0", "trail-c0.8"],
        ["trail-c0.8", "trail-c0", "fcfs"],
        ["fcfs", "trail-c0", "trail-c0.8"],
    ]


def test_over_repeats_every_trail_arm_takes_every_place() -> None:
    arms = parse_arms("fcfs,sjf,trail-c0,trail-c0.8")
    places = {a.name: set() for a in arms}
    for repeat in range(6):
        only_trail = [a.name for a in repeat_order(arms, repeat) if not a.stock]
        for place, name in enumerate(only_trail):
            places[name].add(place)
    assert all(places[n] == {0, 1, 2} for n in ("sjf", "trail-c0", "trail-c0.8"))
