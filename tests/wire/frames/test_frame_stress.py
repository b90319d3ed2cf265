"""Two processes at full speed on a small ring: no row beside another frame's vector, every frame counted."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from trail.wire.frames import ROW_DTYPE, FrameReader, FrameWriter, RingSpec

FRAMES = 60_000
HIDDEN = 512


def write_frames(path: Path, dtype: str, storage: str) -> None:
    """Frames whose key, step and vectors all say the frame's number."""
    writer = FrameWriter.attach(path, hidden_size=HIDDEN, dtype=dtype, layers=[0])
    rows = np.zeros(4, ROW_DTYPE)
    vectors = np.zeros((4, HIDDEN), storage)
    for number in range(FRAMES):
        rows["key"] = number
        vectors[:] = number % 1024
        writer.write(number, rows, vectors)
    writer.close()


@pytest.mark.parametrize(("dtype", "storage"), [("float32", "f4"), ("float16", "f2")])
def test_no_torn_frame_is_delivered(ring_file: Path, dtype: str, storage: str) -> None:
    reader = FrameReader.create(ring_file, RingSpec(HIDDEN, 4, 3))
    process = multiprocessing.get_context("spawn").Process(
        target=write_frames, args=(ring_file, dtype, storage)
    )
    process.start()
    last = -1
    while True:
        finished = not process.is_alive()
        frames = reader.read()
        for frame in frames:
            assert frame.step > last
            last = frame.step
            assert (frame.rows["key"] == frame.step).all()
            assert (frame.vectors == frame.step % 1024).all()
        if finished and not frames:
            break
    process.join()
    counters = reader.counters
    assert process.exitcode == 0
    assert counters.rejected == {}
    assert counters.read + counters.lost + counters.torn == FRAMES
    assert counters.read > 0
    assert counters.lost + counters.torn > 0, "the writer never lapped the reader, so nothing was tested"
    assert last == FRAMES - 1
    reader.close()
