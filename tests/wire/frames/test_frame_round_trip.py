"""What the worker writes is what the sidecar reads, for any rows, dtype, split and wrap-around."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trail.wire.errors import WireError
from trail.wire.frames import ROW_DTYPE, FrameReader, FrameWriter, RingSpec
from trail.wire.writer import INTERVAL_LIMIT_NS

STORAGE = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
ROW = st.tuples(
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 1),
    st.just([0] * 5),
)


def widened(vectors: np.ndarray) -> np.ndarray:
    """float32 of stored vectors, one by one: the obvious way."""
    if vectors.dtype != np.uint16:
        return vectors.astype(np.float32)
    flat = [struct.unpack("<f", struct.pack("<HH", 0, bits))[0] for bits in vectors.ravel().tolist()]
    return np.array(flat, np.float32).reshape(vectors.shape)


@st.composite
def writes(draw: st.DrawFn) -> tuple[RingSpec, str, list[tuple[int, np.ndarray, np.ndarray]]]:
    spec = RingSpec(draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(2, 6)))
    dtype = draw(st.sampled_from(sorted(STORAGE)))
    batches = []
    for _ in range(draw(st.integers(1, 8))):
        rows = np.array(draw(st.lists(ROW, max_size=spec.rows_per_frame * spec.slots)), ROW_DTYPE)
        # Raw bits: infinities, subnormals and NaN travel like any other value.
        shape = (len(rows), spec.hidden_size)
        width = np.uint32 if dtype == "float32" else np.uint16
        vectors = draw(hnp.arrays(width, shape)).view(STORAGE[dtype])
        batches.append((draw(st.integers(0, 2**63)), rows, vectors))
    return spec, dtype, batches


@settings(max_examples=300, deadline=None)
@given(writes())
def test_rows_and_vectors_arrive_as_they_were_written(
    case: tuple[RingSpec, str, list[tuple[int, np.ndarray, np.ndarray]]],
) -> None:
    spec, dtype, batches = case
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "frames-0.ring")
        reader = FrameReader.create(path, spec)
        writer = FrameWriter.attach(path, hidden_size=spec.hidden_size, dtype=dtype, layers=[1])
        for step, rows, vectors in batches:
            frames_written = writer.write(step, rows, vectors)
            frames = reader.read()
            assert len(frames) == frames_written == -(-len(rows) // spec.rows_per_frame)
            if not frames:
                continue
            assert {frame.step for frame in frames} == {step}
            assert np.concatenate([frame.rows for frame in frames]).tobytes() == rows.tobytes()
            read = np.concatenate([frame.vectors for frame in frames])
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, widened(vectors))
        assert reader.counters.lost + reader.counters.torn == 0
        assert not reader.counters.rejected
        writer.close()
        reader.close()


def test_several_layers_of_one_token_are_several_rows(ring_file, make_rows) -> None:
    reader = FrameReader.create(ring_file, RingSpec(8))
    writer = FrameWriter.attach(ring_file, hidden_size=8, dtype="float32", layers=[2, 5, 9])
    rows, vectors = make_rows(3, 8)
    rows["key"] = 77
    rows["layer"] = [2, 5, 9]
    writer.write(0, rows, vectors)
    (frame,) = reader.read()
    assert frame.rows["layer"].tolist() == [2, 5, 9]
    assert reader.writer is not None
    assert reader.writer.layers == (2, 5, 9)
    assert reader.writer.dtype == "float32"
    writer.close()
    reader.close()


def test_rows_and_vectors_may_be_strided_views(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(8))
    rows, vectors = make_rows(6, 16)
    writer.write(0, rows[::2], vectors[::2, ::2])
    (frame,) = reader.read()
    assert frame.vectors[:, 0].tolist() == frame.rows["key"].tolist() == [1, 3, 5]


def test_what_was_read_stays_when_the_slot_is_written_again(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 2))
    writer.write(0, *make_rows(1, 4, 10))
    (first,) = reader.read()
    for key in (11, 12, 13):
        writer.write(1, *make_rows(1, 4, key))
    assert first.rows["key"].tolist() == [10]
    assert first.vectors.tolist() == [[10.0] * 4]


@pytest.mark.parametrize(
    ("rows", "vectors"),
    [
        (np.zeros(2, ROW_DTYPE), np.zeros((3, 4), np.float32)),
        (np.zeros(2, ROW_DTYPE), np.zeros((2, 5), np.float32)),
        (np.zeros(2, ROW_DTYPE), np.zeros((2, 4), np.float64)),
        (np.zeros(2, np.uint64), np.zeros((2, 4), np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_change_nothing(ends, rows, vectors) -> None:
    reader, writer = ends(RingSpec(4))
    with pytest.raises(WireError, match="do not fit"):
        writer.write(0, rows, vectors)
    assert reader.read() == []


def test_closed_ends_do_nothing(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4))
    reader.close()
    writer.close()
    with pytest.raises(WireError, match="after close"):
        writer.write(0, *make_rows(1, 4))
    assert reader.read() == []
    assert reader.writer is None
    assert not writer.reader_alive(10**12)
    reader.beat()
    writer.beat()
    reader.close()
    writer.close()


def test_the_writer_learns_how_often_the_reader_looks_within_reason(ends) -> None:
    reader, writer = ends(RingSpec(hidden_size=4))
    assert writer.reader_interval_ns() == 0
    reader.say_interval(5_000_000)
    assert writer.reader_interval_ns() == 5_000_000
    reader.say_interval(2**63)  # as a damaged word might say
    assert writer.reader_interval_ns() == INTERVAL_LIMIT_NS
    reader.close()
    writer.close()
    assert writer.reader_interval_ns() == 0
