"""A lossless ring (profiling) loses nothing, and says so when its reader has stopped."""

import threading

import pytest

from trail.wire.errors import WireError
from trail.wire.frames import RingSpec


def test_nothing_is_lost_with_a_slow_reader(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 2, lossless=True))
    total = 300

    def write() -> None:
        for step in range(total):
            writer.write(step, *make_rows(1, 4, step + 1))

    thread = threading.Thread(target=write)
    thread.start()
    steps: list[int] = []
    while len(steps) < total and (thread.is_alive() or steps[-1:] != [total - 1]):
        steps += [frame.step for frame in reader.read(1)]
    thread.join()
    assert steps == list(range(total))
    assert reader.counters.lost + reader.counters.torn == 0


def test_more_rows_than_the_ring_holds_pass_through_it(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 2, lossless=True))
    thread = threading.Thread(target=writer.write, args=(0, *make_rows(50, 4)))
    thread.start()
    keys: list[int] = []
    while len(keys) < 50:
        keys += [int(key) for frame in reader.read() for key in frame.rows["key"]]
    thread.join()
    assert keys == list(range(1, 51))


def test_a_stopped_reader_is_an_error_after_the_limit(ends, make_rows) -> None:
    _, writer = ends(RingSpec(4, 2, 2, lossless=True), lossless_timeout_s=0.01)
    with pytest.raises(WireError, match="reader has stopped"):
        writer.write(0, *make_rows(6, 4))


def test_a_ring_that_may_lose_never_waits(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 2), lossless_timeout_s=0.0)
    assert writer.write(0, *make_rows(50, 4)) == 25
    reader.read()
    assert reader.counters.lost == 23
