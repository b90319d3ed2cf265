"""What goes to Redis comes back, and what is not ours is rejected by name."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import REPORT

from trail.wire.redis_schema import (
    GENERATION_LIMIT,
    ControlRecord,
    Keys,
    PodReport,
    Rejected,
    check_pod,
    decode_control,
    decode_report,
    encode_control,
    encode_report,
)

UNKNOWABLE = ("free_blocks", "recompute_cost", "prompt_tokens", "answer_tokens", "short_wait_s", "gap_s")


def raw(encoded: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in encoded.items()}


SMALL = st.floats(0, 1000)
REPORTS = st.builds(
    PodReport,
    **{name: st.one_of(SMALL, st.just(math.nan)) if name in UNKNOWABLE else SMALL
       for name in PodReport.__dataclass_fields__
       if name not in ("usage", "c", "prefix_cache", "generation", "falling_back")},
    usage=st.floats(0, 1), prefix_cache=st.sampled_from([0.0, 1.0, math.nan]), c=st.floats(0, 1),
    generation=st.integers(0, GENERATION_LIMIT), falling_back=st.integers(0, 16),
)  # fmt: skip


@given(REPORTS)
def test_a_report_comes_back(report: PodReport) -> None:
    read = decode_report(raw(encode_report(report)))
    assert isinstance(read, PodReport)
    for name in PodReport.__dataclass_fields__:
        value = getattr(report, name)
        same = pytest.approx(value, rel=1e-8, abs=1e-300, nan_ok=True)
        assert getattr(read, name) == (value if isinstance(value, int) else same), name


@given(st.floats(0, 1), st.text(), st.integers(1, GENERATION_LIMIT))
def test_c_comes_back(c: float, reason: str, generation: int) -> None:
    reason = reason.encode("utf-8", "replace").decode()
    hashed = raw(encode_control(ControlRecord(c, 0, reason)))
    read = decode_control({**hashed, b"generation": str(generation).encode()})
    assert isinstance(read, ControlRecord)
    assert (read.c, read.generation) == (pytest.approx(c, rel=1e-8), generation)
    assert reason.startswith(read.reason) or len(reason.encode()) > 400


BYTES = st.one_of(
    st.binary(max_size=30), st.sampled_from([b"nan", b"inf", b"-1", b"1e400", b"", b"\xff", b"0x1"])
)


@given(st.dictionaries(st.sampled_from(sorted(encode_report(REPORT))), BYTES, max_size=6), st.booleans())
def test_rubbish_in_a_report_is_rejected_by_name_or_is_in_range(
    rubbish: dict[str, bytes], whole: bool
) -> None:
    fields = {**(raw(encode_report(REPORT)) if whole else {}), **{k.encode(): v for k, v in rubbish.items()}}
    read = decode_report(fields)
    if isinstance(read, Rejected):
        assert read.field == "version" or read.field in PodReport.__dataclass_fields__
        assert str(read)
    else:
        encode_report(read)  # only what could have been written


@given(st.dictionaries(st.sampled_from([b"version", b"c", b"generation", b"reason"]), BYTES))
def test_rubbish_in_c_is_rejected_by_name_or_is_in_range(rubbish: dict[bytes, bytes]) -> None:
    read = decode_control({b"version": b"1", b"c": b"0.5", b"generation": b"7", **rubbish})
    if isinstance(read, ControlRecord):
        assert 0 <= read.c <= 1
        assert 0 < read.generation <= GENERATION_LIMIT


@pytest.mark.parametrize(
    "change", [{"c": 1.5}, {"usage": -0.1}, {"waiting": math.inf}, {"waiting": math.nan}]
)
def test_a_value_that_no_reader_takes_is_not_written(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        encode_report(replace(REPORT, **change))


@pytest.mark.parametrize(
    "workload", ["", "llama", "a/b", "a/b/c/d", "a/b/{c}", "a/b/c d", "a//c", "../b/c", "a/b/c\n"]
)
def test_a_workload_that_could_break_a_key_is_refused(workload: str) -> None:
    with pytest.raises(ValueError, match="namespace/kind/name"):
        Keys(workload)


def test_all_keys_of_a_workload_share_one_hash_tag() -> None:
    keys = Keys("shop/deployment/llama-8b.v2")
    names = [keys.pod(check_pod("llama-0")), keys.pods, keys.history, keys.c, keys.hint, keys.state]
    assert len(set(names)) == len(names)
    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {
        "{shop/deployment/llama-8b.v2}"
    }
    assert all(name.startswith("trail:") for name in names)
    with pytest.raises(ValueError, match="pod"):
        check_pod("a:b")
