"""A full ring never stops the writer; the reader counts what it missed exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.wire import ring
from trail.wire.frames import FrameReader, FrameWriter, RingSpec


def accounted(reader: FrameReader) -> int:
    """Frames that the reader has an account of."""
    counters = reader.counters
    frames = sum(count for reason, count in counters.rejected.items() if reason != "bad_head")
    return counters.read + counters.lost + counters.torn + frames


@pytest.mark.parametrize("written", [1, 7, 8, 9, 15, 16, 17, 1000])
def test_a_reader_that_fell_behind_jumps_to_the_oldest_frame(ends, make_rows, written) -> None:
    reader, writer = ends(RingSpec(4, 2, 8))
    for key in range(1, written + 1):
        writer.write(key, *make_rows(1, 4, key))
    frames = reader.read()
    assert [frame.step for frame in frames] == list(range(max(1, written - 7), written + 1))
    assert reader.counters.lost == max(0, written - 8)
    assert reader.counters.read == min(written, 8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 12)), max_size=30))
def test_every_frame_is_read_or_lost(tmp_path_factory, pattern) -> None:
    path = tmp_path_factory.mktemp("ring") / "frames-0.ring"
    reader = FrameReader.create(path, RingSpec(2, 1, 5))
    writer = FrameWriter.attach(path, hidden_size=2, dtype="float32", layers=[0])
    rows, vectors = np.zeros(1, ring.ROW_DTYPE), np.zeros((1, 2), np.float32)
    written, seen = 0, []
    for writes, reads in pattern:
        for _ in range(writes):
            writer.write(written, rows, vectors)
            written += 1
        seen += [frame.step for frame in reader.read(reads)]
    seen += [frame.step for frame in reader.read()]
    assert seen == sorted(set(seen))
    assert seen[-5:] == list(range(written))[-5:]
    assert accounted(reader) == written
    assert reader.counters.rejected == {}
    writer.close()
    reader.close()


def test_a_frame_being_written_over_is_lost_not_damaged(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 4))
    for key in range(1, 5):
        writer.write(key, *make_rows(1, 4, key))
    # The writer stopped inside frame 4, which lies where frame 0 was.
    writer._file.words[ring.HEADER_BYTES // 8] = 2 * 4 + 1
    assert [frame.step for frame in reader.read()] == [2, 3, 4]
    assert reader.counters.lost == 1
    assert reader.counters.rejected == {}


def test_a_damaged_head_is_counted_once_and_heals_with_the_next_frame(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 4))
    writer.write(1, *make_rows(1, 4))
    for head in (5000, 2**64 - 1, 2**63):
        writer._file.words[ring.HEAD_WORD] = head
        reader.read()
        reader.read()
    assert reader.counters.rejected == {"bad_head": 3}
    writer.write(2, *make_rows(1, 4))
    assert [frame.step for frame in reader.read()] == [1, 2]
    assert reader.counters.lost == 0


def test_a_head_and_a_sequence_word_damaged_alike_are_not_believed(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 4))
    writer.write(1, *make_rows(1, 4))
    for head in (5, 2**31 + 1):
        writer._file.words[ring.HEAD_WORD] = head
        writer._file.words[ring.HEADER_BYTES // 8] = 2 * head
        assert reader.read() == []
    writer.write(2, *make_rows(1, 4))
    assert [frame.step for frame in reader.read()] == [2]
    assert reader.counters.rejected == {"bad_head": 2, "bad_sequence": 1}
    assert reader.counters.lost == 0


def test_a_head_that_goes_back_is_refused(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 4))
    for step in range(3):
        writer.write(step, *make_rows(1, 4))
    assert len(reader.read()) == 3
    for head in (0, 1, 2):
        writer._file.words[ring.HEAD_WORD] = head
        assert reader.read() == []
    assert reader.counters.rejected["bad_head"] >= 2
    assert reader.counters.read == 3


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, 0, "bad_count"),
        (0, 3, "bad_count"),
        (0, 2**32 - 1, "bad_count"),
        (1, 99, "bad_checksum"),
        (2, 99, "bad_checksum"),
        (3, 2**40, "bad_length"),
        (4, 0, "bad_dtype"),
        (4, 2**32 - 1, "bad_dtype"),
    ],
)
def test_a_damaged_slot_header_is_rejected_by_reason(ends, make_rows, field, value, reason) -> None:
    reader, writer = ends(RingSpec(4, 2, 4))
    writer.write(1, *make_rows(2, 4))
    writer.write(2, *make_rows(2, 4))
    at = ring.HEADER_BYTES + ring.SLOT_HEADER_OFFSET
    fields = list(ring.SLOT_HEADER.unpack_from(writer._file.data, at))
    fields[field] = value
    ring.SLOT_HEADER.pack_into(writer._file.data, at, *fields)
    assert [frame.step for frame in reader.read()] == [2]
    assert reader.counters.rejected == {reason: 1}


def test_a_sequence_word_of_another_slot_is_rejected(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4, 2, 4))
    for step in range(3):
        writer.write(step, *make_rows(1, 4))
    writer._file.words[ring.HEADER_BYTES // 8] = 2 * 1 + 2
    assert [frame.step for frame in reader.read()] == [1, 2]
    assert reader.counters.rejected == {"bad_sequence": 1}


def test_a_kind_that_does_not_exist_is_rejected(ends, make_rows) -> None:
    reader, writer = ends(RingSpec(4))
    rows, vectors = make_rows(2, 4)
    rows["kind"] = 2
    writer.write(0, rows, vectors)
    assert reader.read() == []
    assert reader.counters.rejected == {"bad_kind": 1}
