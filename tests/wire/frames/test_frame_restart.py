"""Either side may restart: the writer notices the silent reader and attaches to its successor's file."""

import time

from trail.wire import ring
from trail.wire.frames import FrameReader, FrameWriter, RingSpec

LONG_NS = 3600 * 10**9


def test_a_reader_that_beats_is_alive_and_one_that_closed_is_not(ends) -> None:
    reader, writer = ends(RingSpec(4))
    assert writer.reader_alive(LONG_NS)
    reader.close()
    assert not writer.reader_alive(LONG_NS)


def test_a_heartbeat_beyond_the_limit_is_not_alive(ends) -> None:
    _, writer = ends(RingSpec(4))
    writer._file.words[ring.READER_BEAT_WORD] = time.monotonic_ns() - 1000
    assert not writer.reader_alive(999)


def test_a_heartbeat_from_the_future_is_not_alive(ends) -> None:
    _, writer = ends(RingSpec(4))
    writer._file.words[ring.READER_BEAT_WORD] = time.monotonic_ns() + LONG_NS
    assert not writer.reader_alive(LONG_NS)


def test_the_writer_follows_a_restarted_reader(ring_file, make_rows) -> None:
    first = FrameReader.create(ring_file, RingSpec(4))
    writer = FrameWriter.attach(ring_file, hidden_size=4, dtype="float32", layers=[1])
    writer.write(1, *make_rows(1, 4))
    # Killed: no more heartbeats, the old file lives on in the writer's mapping.
    writer._file.words[ring.READER_BEAT_WORD] = 1
    second = FrameReader.create(ring_file, RingSpec(4, slots=8))
    assert not writer.reader_alive(0)
    writer.write(2, *make_rows(1, 4))
    assert second.read() == []
    writer.close()
    writer = FrameWriter.attach(ring_file, hidden_size=4, dtype="float32", layers=[1])
    assert writer.reader_alive(LONG_NS)
    writer.write(3, *make_rows(1, 4))
    assert [frame.step for frame in second.read()] == [3]
    for end in (writer, first, second):
        end.close()


def test_a_restarted_writer_goes_on_where_the_first_stopped(ring_file, make_rows) -> None:
    reader = FrameReader.create(ring_file, RingSpec(4, 2, 4))
    for step in range(11):
        writer = FrameWriter.attach(ring_file, hidden_size=4, dtype="float16", layers=[step])
        writer.write(step, make_rows(1, 4)[0], make_rows(1, 4)[1].astype("f2"))
        if step == 5:
            # Killed inside the next frame.
            slot = RingSpec(4, 2, 4).slot_offset(6 % 4)
            writer._file.words[slot // 8] = 2 * 6 + 1
        assert [frame.step for frame in reader.read()] == [step]
        assert reader.writer is not None
        assert reader.writer.layers == (step,)
        writer.close()
        assert reader.writer is None
    assert reader.counters.read == 11
    assert reader.counters.rejected == {}
    reader.close()
