"""Two processes at full speed: every snapshot is one update's, never a mixture of two."""

import multiprocessing
from pathlib import Path

import numpy as np

from trail.wire.board import BOARD_ROW, BoardHeader, BoardReader, BoardWriter

UPDATES = 60_000
ROWS = 64


def publish_updates(path: Path, slots: np.ndarray) -> None:
    """Updates in which every field of every row says the generation."""
    writer = BoardWriter.create(path, ROWS)
    rows = np.zeros(ROWS, BOARD_ROW)
    for generation in range(UPDATES):
        for field in BOARD_ROW.names:
            rows[field] = generation
        writer.publish(
            slots, rows, BoardHeader(1, 0, generation, True, True, 0.5, float(generation), float(generation))
        )
    writer.close()


def test_no_mixed_snapshot_is_delivered(board_file: Path) -> None:
    slots = np.random.default_rng(1).permutation(ROWS)
    process = multiprocessing.get_context("spawn").Process(target=publish_updates, args=(board_file, slots))
    process.start()
    while not board_file.exists() and process.is_alive():
        pass
    reader = BoardReader.attach(board_file)
    generations = set()
    while process.is_alive():
        snapshot = reader.snapshot(slots)
        if snapshot is None:
            continue
        generation = snapshot.header.generation
        generations.add(generation)
        assert snapshot.header.mean_initial == generation
        if snapshot.header.order:
            for field in BOARD_ROW.names:
                assert (snapshot.rows[field] == np.float32(generation)).all()
    process.join()
    assert process.exitcode == 0
    assert len(generations) > 10
    final = reader.snapshot(slots)
    assert final is not None
    assert final.header.generation == UPDATES - 1
    reader.close()
