"""More than a million damaged frames and headers: the reader never fails and accounts for every frame.

A seeded generator does the damage in place, in every field and anywhere else.
"""

import os
import zlib
from pathlib import Path

import numpy as np

from trail.wire import ring
from trail.wire.errors import LayoutError
from trail.wire.frames import ROW_DTYPE, FrameReader, FrameWriter, RingSpec
from trail.wire.mapped import seal_identity

SPEC = RingSpec(hidden_size=8, rows_per_frame=4, slots=64)
ROUNDS = 18_600  # of 64 damaged frames each, of which seven in eight reach the reader
ATTACHES = 40_000
# Where a slot's fields lie: sequence, checksum, count, step, time, bytes of vectors, dtype.
FIELDS = np.array([0, 8, 12, 16, 24, 32, 40])
WIDTHS = np.array([8, 4, 4, 8, 8, 8, 4])
VALUES = np.array(
    [*range(8), 64, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1],
    np.uint64,
)


class Damage:
    """Changes bytes of a mapped ring."""

    def __init__(self, data: np.ndarray) -> None:
        self.random = np.random.default_rng(20241)
        self.data = data

    def slots(self) -> None:
        """At least one change in each slot: a field, a bit of header or rows, any byte."""
        for _ in range(int(self.random.integers(1, 4))):
            kinds = self.random.integers(0, 4, SPEC.slots)
            for kind, change in enumerate((self._field, self._near_field, self._bit, self._byte)):
                slots = np.flatnonzero(kinds == kind)
                change(slots * SPEC.slot_bytes + ring.HEADER_BYTES)

    def _store(self, at: np.ndarray, widths: np.ndarray, values: np.ndarray) -> None:
        octets = values.astype("<u8").view(np.uint8).reshape(-1, 8)
        for i in range(8):
            wide = widths > i
            self.data[at[wide] + i] = octets[wide, i]

    def _field(self, starts: np.ndarray) -> None:
        which = self.random.integers(0, len(FIELDS), len(starts))
        self._store(starts + FIELDS[which], WIDTHS[which], self.random.choice(VALUES, len(starts)))

    def _near_field(self, starts: np.ndarray) -> None:
        """Off by little: the values that a missing check would let through."""
        which = self.random.integers(0, len(FIELDS), len(starts))
        at = starts + FIELDS[which]
        self.data[at] = self.data[at] + self.random.integers(1, 5, len(starts)).astype(np.uint8)

    def _bit(self, starts: np.ndarray) -> None:
        at = starts + self.random.integers(0, SPEC.vectors_offset, len(starts))
        self.data[at] ^= (1 << self.random.integers(0, 8, len(starts))).astype(np.uint8)

    def _byte(self, starts: np.ndarray) -> None:
        at = starts + self.random.integers(0, SPEC.slot_bytes, len(starts))
        self.data[at] = self.random.integers(0, 256, len(starts))

    def header(self) -> None:
        """Anything in the ring's header, the words in use more often."""
        words = self.data[: ring.HEADER_BYTES].view(np.uint64)
        for _ in range(int(self.random.integers(1, 5))):
            if self.random.random() < 0.5:
                named = (ring.HEAD_WORD, ring.WRITER_BEAT_WORD, ring.TAIL_WORD, ring.READER_BEAT_WORD)
                words[self.random.choice(named)] = self.random.choice(VALUES)
            else:
                self.data[self.random.integers(0, 512)] = self.random.integers(0, 256)

    def seal(self, number: int) -> None:
        """Give a damaged frame a checksum that fits, so that the checks behind it are reached."""
        start = SPEC.slot_offset(number % SPEC.slots)
        header = start + ring.SLOT_HEADER_OFFSET
        count = min(int(self.data[header : header + 4].view(np.uint32)[0]), SPEC.rows_per_frame)
        end = start + ring.SLOT_HEADER_BYTES + count * ROW_DTYPE.itemsize
        checksum = zlib.crc32(self.data[header:end].tobytes(), number & 0xFFFFFFFF)
        at = start + ring.CHECKSUM_OFFSET
        self.data[at : at + 4] = np.frombuffer(checksum.to_bytes(4, "little"), np.uint8)


def accounted(reader: FrameReader) -> int:
    """Frames that the reader has an account of."""
    counters = reader.counters
    frames = sum(count for reason, count in counters.rejected.items() if reason != "bad_head")
    return counters.read + counters.lost + counters.torn + frames


def test_a_million_damaged_frames(ring_file: Path) -> None:
    reader = FrameReader.create(ring_file, SPEC)
    writer = FrameWriter.attach(ring_file, hidden_size=SPEC.hidden_size, dtype="float32", layers=[1])
    data = np.memmap(ring_file, np.uint8, mode="r+")
    damage = Damage(data)
    batches = [np.zeros(count, ROW_DTYPE) for count in range(1, SPEC.rows_per_frame + 1)]
    for count, rows in enumerate(batches, 1):
        rows["key"], rows["position"], rows["layer"] = np.arange(1, count + 1), 10 * count, 1
    vectors = np.ones((SPEC.rows_per_frame, SPEC.hidden_size), np.float32)
    written = reads_before = 0

    def write(frames: int) -> None:
        nonlocal written
        for _ in range(frames):
            rows = batches[written % len(batches)]
            writer.write(written, rows, vectors[: len(rows)])
            written += 1

    for round_number in range(ROUNDS):
        write(SPEC.slots)
        damage.slots()
        sealed = {written - SPEC.slots + int(i) for i in damage.random.integers(0, SPEC.slots, 8)}
        for number in sealed:
            damage.seal(number)
        # Without an undamaged newest frame the reader cannot believe the head, and waits for the next.
        newest_is_whole = round_number % 8 != 0
        if newest_is_whole:
            write(1)
        frames = []
        if round_number % 4 == 1:
            damage.header()
            frames = reader.read(2 * SPEC.slots)
            assert reader.writer is None or len(reader.writer.layers) <= ring.MAX_LAYERS
            # What a live writer does with its next frame.
            data[ring.HEAD_WORD * 8 : ring.HEAD_WORD * 8 + 8].view(np.uint64)[0] = written
        frames += reader.read(2 * SPEC.slots)
        assert len(frames) == reader.counters.read - reads_before
        reads_before = reader.counters.read
        assert accounted(reader) == written or (accounted(reader) < written and not newest_is_whole)
        forged = 0
        for frame in frames:
            count = len(frame.rows)
            assert 1 <= count <= SPEC.rows_per_frame
            assert frame.vectors.shape == (count, SPEC.hidden_size)
            assert frame.vectors.dtype == np.float32
            assert (frame.rows["kind"] <= 1).all()
            genuine = frame.rows.tobytes() == batches[frame.step % len(batches)].tobytes()
            forged += not (genuine and written - SPEC.slots - 1 <= frame.step < written)
        # What the checksum covers is what was written, but where the damage made a checksum that fits.
        assert forged <= len(sealed)
    write(1)
    assert reader.read(2 * SPEC.slots)[-1].step == written - 1
    counters = reader.counters
    reasons = {"bad_checksum", "bad_count", "bad_dtype", "bad_kind", "bad_length", "bad_sequence", "bad_head"}
    assert set(counters.rejected) == reasons
    assert accounted(reader) == written
    assert accounted(reader) - counters.lost > 1_000_000
    assert sum(counters.rejected.values()) > 500_000
    writer.close()
    reader.close()


def test_damaged_headers_at_attach(ring_file: Path) -> None:
    """Attaching either refuses with LayoutError or gives a writer that stays within the file."""
    spec = RingSpec(8, 2, 2)
    reader = FrameReader.create(ring_file, spec)
    pristine = ring_file.read_bytes()
    reader.close()
    random = np.random.default_rng(7)
    rows, vectors = np.zeros(5, ROW_DTYPE), np.zeros((5, 8), np.float32)
    refused: list[str] = []
    with ring_file.open("r+b") as file:
        for _ in range(ATTACHES):
            damaged = bytearray(pristine)
            for _ in range(int(random.integers(1, 4))):
                # The identity's fields, then the rest of the header.
                at = int(random.integers(0, 64) if random.random() < 0.7 else random.integers(64, 768))
                if random.random() < 0.5:
                    damaged[at] = int(random.integers(0, 256))
                else:
                    at &= ~3
                    value = int(random.choice(VALUES)) & 0xFFFFFFFF
                    damaged[at : at + 4] = value.to_bytes(4, "little")
            if random.random() < 0.5:
                # With a checksum that fits, the checks behind it must hold.
                seal_identity(memoryview(damaged), ring.IDENTITY.size)
            file.seek(0)
            file.write(damaged)
            file.flush()
            size = len(pristine) if random.random() < 0.9 else int(random.integers(0, 2 * len(pristine)))
            os.truncate(ring_file, size)
            try:
                writer = FrameWriter.attach(ring_file, hidden_size=8, dtype="float32", layers=[1])
            except LayoutError as error:
                refused.append(str(error))
            else:
                assert writer.spec.file_bytes == len(pristine)
                if not writer.spec.lossless:
                    assert writer.write(0, rows, vectors) == -(-5 // writer.spec.rows_per_frame)
                writer.close()
            os.truncate(ring_file, len(pristine))
    assert ATTACHES // 10 < len(refused) < ATTACHES
    remedies = ("restart the sidecar", "install", "predictor")
    assert all(any(remedy in text for remedy in remedies) for text in refused)
