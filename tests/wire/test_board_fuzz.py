"""Damaged boards: attaching refuses with LayoutError or works, a snapshot is None or well-formed."""

import math
import os
from pathlib import Path

import numpy as np

from trail.wire import board
from trail.wire.board import BOARD_ROW, BoardHeader, BoardReader, BoardWriter
from trail.wire.errors import LayoutError
from trail.wire.mapped import seal_identity

CAPACITY = 16
ATTACHES = 40_000
SNAPSHOTS = 150_000
HEADER = BoardHeader(
    1, 0, 1, True, True, 0.8, 9.0, -1.0, boost=True, kappa=1.0, wait_s=4.0, token_s=0.02, preempt_ratio=2.0,
    max_preemptions=1,
)  # fmt: skip
SIZE = board.HEADER_BYTES + CAPACITY * BOARD_ROW.itemsize


def test_damaged_headers_at_attach(board_file: Path) -> None:
    BoardWriter.create(board_file, CAPACITY).close()
    pristine = board_file.read_bytes()
    random = np.random.default_rng(11)
    refused: list[str] = []
    slots = np.arange(CAPACITY)
    with board_file.open("r+b") as file:
        for _ in range(ATTACHES):
            damaged = bytearray(pristine)
            for _ in range(int(random.integers(1, 4))):
                at = int(random.integers(0, 32) if random.random() < 0.7 else random.integers(32, SIZE))
                damaged[at] = int(random.integers(0, 256))
            if random.random() < 0.5:
                # With a checksum that fits, the checks behind it must hold.
                seal_identity(memoryview(damaged), board.IDENTITY.size)
            file.seek(0)
            file.write(damaged)
            file.flush()
            if random.random() < 0.1:
                os.truncate(board_file, int(random.integers(0, 2 * SIZE)))
            try:
                reader = BoardReader.attach(board_file)
            except LayoutError as error:
                refused.append(str(error))
            else:
                assert reader.capacity == CAPACITY
                reader.snapshot(slots)
                reader.fresh(10**9)
                reader.close()
            os.truncate(board_file, SIZE)
    assert ATTACHES // 10 < len(refused) < ATTACHES
    assert all("restart the sidecar" in text or "install" in text for text in refused)


def test_damaged_contents_after_attach(board_file: Path) -> None:
    writer = BoardWriter.create(board_file, CAPACITY)
    reader = BoardReader.attach(board_file)
    slots = np.arange(CAPACITY)
    writer.publish(slots, np.zeros(CAPACITY, BOARD_ROW), HEADER)
    pristine = np.fromfile(board_file, np.uint8)
    data = np.memmap(board_file, np.uint8, mode="r+")
    random = np.random.default_rng(13)
    places = random.integers(0, SIZE, (SNAPSHOTS, 3))
    # Half of the damage falls on the lock, the heartbeat and the policy.
    places[::2] = random.integers(64, board.HEADER_BYTES, places[::2].shape)
    octets = random.integers(0, 256, places.shape).astype(np.uint8)
    missing = 0
    for place, octet in zip(places, octets, strict=True):
        data[place] = octet
        snapshot = reader.snapshot(slots)
        reader.fresh(10**9)
        if snapshot is None:
            missing += 1
        else:
            header = snapshot.header
            assert snapshot.rows.shape == slots.shape
            assert snapshot.rows.dtype == BOARD_ROW
            assert 0 <= header.c <= 1
            assert math.isfinite(header.mean_initial)
            assert math.isfinite(header.kv_reserve_tokens)
            assert header.kappa >= 0
            assert math.isfinite(header.wait_s + header.token_s + header.preempt_ratio)
            assert min(header.wait_s, header.token_s) >= 0
            assert header.preempt_ratio >= 1
            assert snapshot.rows.tobytes() == data[board.HEADER_BYTES :].tobytes()
        data[place] = pristine[place]
    assert 0 < missing < SNAPSHOTS
    assert reader.snapshot(slots) is not None
    reader.close()
    writer.close()
