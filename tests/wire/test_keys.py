"""Request keys: 64 bits, stable between processes, never the empty row's 0."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from trail.wire.keys import request_key


@given(st.text())
def test_any_id_has_a_key_of_64_bits_that_is_not_0(request_id: str) -> None:
    assert 0 < request_key(request_id) < 1 << 64


def test_engine_and_sidecar_compute_the_same_key() -> None:
    code = "from trail.wire.keys import request_key; print(request_key('cmpl-1-0-a1b2c3d4'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == request_key("cmpl-1-0-a1b2c3d4")


def test_an_id_with_a_lone_surrogate_has_a_key() -> None:
    assert request_key("cmpl-\udc80") != request_key("cmpl-")


def test_keys_of_many_requests_are_distinct() -> None:
    assert len({request_key(f"cmpl-{i}") for i in range(100_000)}) == 100_000
