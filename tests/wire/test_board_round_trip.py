"""What the sidecar publishes is what the engine core sees, as one update."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trail.wire import board
from trail.wire.board import BOARD_ROW, BoardHeader, BoardReader, BoardWriter
from trail.wire.errors import WireError

HEADER = BoardHeader(7, 0, 3, order=True, preempt=False, c=0.8, mean_initial=120.0, kv_reserve_tokens=-1.0)
LONG_NS = 3600 * 10**9
CAPACITY = 37

headers = st.builds(
    BoardHeader,
    epoch=st.integers(0, 2**64 - 1),
    heartbeat_ns=st.just(0),
    generation=st.integers(0, 2**64 - 1),
    order=st.booleans(),
    preempt=st.booleans(),
    c=st.floats(0, 1),
    mean_initial=st.floats(0, 1e9),
    kv_reserve_tokens=st.floats(-1, 1e9),
    boost=st.booleans(),
    kappa=st.floats(0, allow_nan=False),
    wait_s=st.floats(0, 1e6),
    token_s=st.floats(0, 10),
    preempt_ratio=st.floats(1, 100),
    max_preemptions=st.integers(-1, 2**31 - 1),
    mean_prompt=st.floats(0, 1e9),
)
updates = st.lists(
    st.tuples(
        st.lists(st.integers(0, CAPACITY - 1), unique=True, max_size=CAPACITY),
        st.randoms(use_true_random=False),
        headers,
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=200, deadline=None)
@given(updates, hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, CAPACITY - 1)))
def test_snapshots_equal_a_plain_array(tmp_path_factory, published, asked) -> None:
    path = tmp_path_factory.mktemp("board") / "board-0.board"
    writer = BoardWriter.create(path, CAPACITY)
    reader = BoardReader.attach(path)
    assert reader.capacity == CAPACITY
    expected = np.zeros(CAPACITY, BOARD_ROW)
    for slots, random, header in published:
        rows = np.frombuffer(random.randbytes(len(slots) * BOARD_ROW.itemsize), BOARD_ROW)
        expected[slots] = rows
        before_ns = time.monotonic_ns()
        writer.publish(np.array(slots, np.int64), rows, header)
        snapshot = reader.snapshot(asked)
        assert snapshot is not None
        assert snapshot.rows.tobytes() == expected[asked].tobytes()
        assert before_ns <= snapshot.header.heartbeat_ns <= time.monotonic_ns()
        assert BoardHeader(**{**vars(snapshot.header), "heartbeat_ns": 0}) == header
    reader.close()
    writer.close()


@pytest.fixture
def ends(board_file):
    writer = BoardWriter.create(board_file, 8)
    reader = BoardReader.attach(board_file)
    yield writer, reader
    reader.close()
    writer.close()


def test_a_snapshot_is_a_copy(ends) -> None:
    writer, reader = ends
    slots, rows = np.array([2]), np.zeros(1, BOARD_ROW)
    rows["key"] = 5
    writer.publish(slots, rows, HEADER)
    snapshot = reader.snapshot(slots)
    rows["key"] = 6
    writer.publish(slots, rows, HEADER)
    assert snapshot is not None
    assert snapshot.rows["key"].tolist() == [5]


def test_a_board_that_was_never_published_to_is_empty_and_not_fresh(ends) -> None:
    _, reader = ends
    snapshot = reader.snapshot(np.arange(8))
    assert snapshot is not None
    assert not snapshot.rows["key"].any()
    assert snapshot.header.kv_reserve_tokens < 0
    assert not snapshot.header.order
    assert not reader.fresh(1)


def test_beating_and_publishing_make_it_fresh_and_closing_ends_that(ends) -> None:
    writer, reader = ends
    writer.beat()
    assert reader.fresh(LONG_NS)
    writer._file.words[board.BEAT_WORD] = 0
    writer.publish(np.array([0]), np.zeros(1, BOARD_ROW), HEADER)
    assert reader.fresh(LONG_NS)
    writer.close()
    assert not reader.fresh(time.monotonic_ns() - 1)


def test_a_heartbeat_from_the_future_is_not_fresh(ends) -> None:
    writer, reader = ends
    writer._file.words[board.BEAT_WORD] = time.monotonic_ns() + LONG_NS
    assert not reader.fresh(LONG_NS)


def test_a_writer_that_died_in_an_update_gives_no_snapshot(ends) -> None:
    writer, reader = ends
    writer.publish(np.array([0]), np.zeros(1, BOARD_ROW), HEADER)
    writer._file.words[board.LOCK_WORD] += 1
    assert reader.snapshot(np.array([0])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"c": float("nan")},
        {"c": 1.5},
        {"mean_initial": float("inf")},
        {"kv_reserve_tokens": float("nan")},
        {"kappa": float("nan")},
        {"kappa": -1.0},
        {"wait_s": float("inf")},
        {"wait_s": -0.5},
        {"token_s": float("nan")},
        {"preempt_ratio": 0.5},
        {"preempt_ratio": float("inf")},
        {"mean_prompt": -1.0},
        {"mean_prompt": float("nan")},
    ],
)
def test_a_header_that_no_sidecar_writes_gives_no_snapshot(ends, change) -> None:
    writer, reader = ends
    writer.publish(np.array([0]), np.zeros(1, BOARD_ROW), BoardHeader(**{**vars(HEADER), **change}))
    assert reader.snapshot(np.array([0])) is None


@pytest.mark.parametrize("slot", [-1, 8, 2**40])
def test_slots_outside_the_board_are_refused_before_anything_is_written(ends, slot) -> None:
    writer, reader = ends
    rows = np.zeros(2, BOARD_ROW)
    rows["key"] = 9
    with pytest.raises(IndexError, match="of a board with 8"):
        writer.publish(np.array([0, slot]), rows, HEADER)
    snapshot = reader.snapshot(np.array([0]))
    assert snapshot is not None
    assert snapshot.rows["key"].tolist() == [0]


def test_rows_that_do_not_fit_are_refused(ends) -> None:
    writer, reader = ends
    with pytest.raises(ValueError, match="expected"):
        writer.publish(np.array([0, 1]), np.zeros(3, BOARD_ROW), HEADER)
    with pytest.raises(ValueError, match="expected"):
        writer.publish(np.array([0, 1]), np.zeros(2, np.float32), HEADER)
    with pytest.raises(ValueError, match="integers"):
        writer.publish(np.array([0.5]), np.zeros(1, BOARD_ROW), HEADER)
    assert reader.snapshot(np.array([0])) is not None


def test_no_rows_is_an_update_of_the_header(ends) -> None:
    writer, reader = ends
    writer.publish(np.array([]), np.zeros(0, BOARD_ROW), HEADER)
    snapshot = reader.snapshot(np.array([]))
    assert snapshot is not None
    assert len(snapshot.rows) == 0
    assert snapshot.header.generation == HEADER.generation


def test_a_damaged_lock_heals_with_the_next_update(ends) -> None:
    writer, reader = ends
    writer._file.words[board.LOCK_WORD] = 2**64 - 1
    writer.publish(np.array([0]), np.zeros(1, BOARD_ROW), HEADER)
    assert reader.snapshot(np.array([0])) is not None


def test_closed_ends_do_nothing(ends) -> None:
    writer, reader = ends
    reader.close()
    assert reader.snapshot(np.array([0])) is None
    assert not reader.fresh(LONG_NS)
    writer.close()
    writer.beat()
    with pytest.raises(WireError, match="after close"):
        writer.publish(np.array([0]), np.zeros(1, BOARD_ROW), HEADER)
    reader.close()


@pytest.mark.parametrize("capacity", [0, -1, (1 << 20) + 1])
def test_a_capacity_out_of_range(board_file, capacity) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        BoardWriter.create(board_file, capacity)
