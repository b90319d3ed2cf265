"""Workloads are drawn from one seed: the same seed gives the same requests, whatever else is asked for."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trail.bench.arrivals import TraceError, burst, gamma_gaps, poisson, read_trace, rescale
from trail.bench.workload import (
    Prompt,
    PromptFileError,
    build_requests,
    choose_prompts,
    read_prompts,
    repeat_rng,
)

POOL = [Prompt((i, i + 1), None) for i in range(7)]


def workload(seed: int, repeat: int, n: int = 20) -> list[object]:
    rng = repeat_rng(seed, repeat)
    prompts = choose_prompts(POOL, n, rng)
    return list(build_requests(prompts, poisson(n, 5.0, rng), [9] * n, rng))


@given(st.integers(0, 2**31), st.integers(0, 50))
def test_same_seed_same_requests_and_another_repeat_others(seed: int, repeat: int) -> None:
    assert workload(seed, repeat) == workload(seed, repeat)
    assert workload(seed, repeat) != workload(seed, repeat + 1)


def test_every_prompt_is_used_once_before_any_is_used_twice() -> None:
    chosen = choose_prompts(POOL, 14, repeat_rng(3, 0))
    assert sorted(p.token_ids for p in chosen[:7]) == [p.token_ids for p in POOL]
    assert sorted(p.token_ids for p in chosen[7:]) == [p.token_ids for p in POOL]


@given(st.integers(1, 200), st.floats(0.01, 1000), st.floats(0.05, 20), st.integers(0, 2**31))
def test_arrivals_begin_at_zero_and_never_run_backwards(n: int, rate: float, scv: float, seed: int) -> None:
    times = gamma_gaps(n, rate, scv, np.random.default_rng(seed))
    assert len(times) == n
    assert times[0] == 0
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("scv", [0.2, 1.0, 8.0])
def test_gaps_have_the_mean_and_the_variability_asked_for(scv: float) -> None:
    gaps = np.diff(gamma_gaps(200_000, 4.0, scv, np.random.default_rng(0)))
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(scv, rel=0.06)


def test_poisson_counts_have_variance_equal_to_their_mean() -> None:
    times = poisson(100_000, 10.0, np.random.default_rng(2))
    counts = np.bincount(times.astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.06)


def test_a_burst_arrives_at_once() -> None:
    assert burst(4).tolist() == [0, 0, 0, 0]


@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=50), st.floats(0.1, 100))
def test_rescaling_keeps_the_pattern_and_sets_the_rate(gaps: list[float], rate: float) -> None:
    times = np.cumsum(gaps)
    got = rescale(times, rate)
    assert got[0] == 0
    if times[-1] - times[0] > 1e-6:
        assert (len(times) - 1) / got[-1] == pytest.approx(rate, rel=1e-6)
        before = (times - times[0]) / (times[-1] - times[0])
        assert got / got[-1] == pytest.approx(before, abs=1e-9)


def test_traces_are_shifted_to_zero_and_cut(tmp_path: Path) -> None:
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(b"arrival_s,input_tokens,output_tokens\n5.0,1,2\n5.5,1,2\n9.0,1,2\n"))
    assert read_trace(file, 2).tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("when\n1\n", "no column 'arrival_s'"),
        ("arrival_s\n1\nsoon\n", "line 3"),
        ("arrival_s\n2\n1\n", "before the line above"),
        ("arrival_s\n1\n", "1 arrivals, 2 are asked for"),
    ],
)
def test_bad_traces_are_named_with_their_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(content)
    with pytest.raises(TraceError, match=message):
        read_trace(file, 2)


def test_prompt_files_give_ids_or_text(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(
        json.dumps({"prompt_token_ids": [1, 2], "prompt": "ab"}) + "\n\n" + json.dumps({"prompt": "x"})
    )
    assert read_prompts(file) == [Prompt((1, 2), None), Prompt(None, "x")]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"prompt_token_ids": []}', '{"prompt_token_ids": [-1]}', '{"prompt": 3}']
)
def test_bad_prompt_lines_are_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "ok"}\n' + line + "\n")
    with pytest.raises(PromptFileError, match="line 2"):
        read_prompts(file)
