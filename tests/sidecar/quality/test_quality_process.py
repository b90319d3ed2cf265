"""A real sidecar whose probe's outputs are permuted: its board stops using them, and comes back to them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from service_kit import BINS, HIDDEN, LAYER, EngineStream, SidecarProcess, rows, until

from trail.predict import artefact
from trail.predict.fingerprint import describe_model
from trail.predict.manifest import Manifest
from trail.predict.probe import Probe
from trail.predict.refine import PAPER
from trail.wire.board import BoardReader, BoardSnapshot
from trail.wire.frames import FrameWriter, Kind
from trail.wire.names import ring_path
from trail.wire.v1 import trail_pb2, trail_pb2_grpc

Run = Callable[..., SidecarProcess]

TOGETHER = 10
LIMIT_S = 120.0
"""Machines under test may be busy: this waits for what must come, however late."""


def telling_probe(permutation: list[int]) -> Probe:
    """Answers bin permutation[i] to a vector whose largest number is the i-th of the first k."""
    hidden = np.zeros((16, HIDDEN), np.float32)
    hidden[:HIDDEN] = np.eye(HIDDEN)
    output = np.zeros((BINS.k, 16), np.float32)
    for i, said in enumerate(permutation):
        output[said, i] = 8.0
    weights = {
        "hidden.weight": hidden, "hidden.bias": np.zeros(16, np.float32),
        "output.weight": output, "output.bias": np.zeros(BINS.k, np.float32),
    }  # fmt: skip
    return Probe(weights, BINS, LAYER)


@pytest.fixture
def permuted_dir(tmp_path: Path) -> Path:
    """An artefact without a prompt predictor whose probe's classes are in reverse order."""
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
                "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 20,
            }
        )
    )  # fmt: skip
    manifest = Manifest.for_model(
        describe_model(config), model_id="example/small", model_revision="abc", layer=LAYER, bins=BINS,
        training_data_sha256="0" * 64, mean_output_tokens=31.5, metrics={}, recipe={}, decoding=PAPER,
    )  # fmt: skip
    path = tmp_path / "permuted"
    artefact.save(path, manifest, telling_probe(list(reversed(range(BINS.k)))), None)
    return path


class Engine:
    """Serves requests of random lengths whose hidden states tell the remaining length's bin."""

    def __init__(self, sidecar: SidecarProcess, board: BoardReader) -> None:
        self.stream = EngineStream(sidecar.directory)
        self.stream.hello()
        self.board = board
        self.finished = 0
        self._control = trail_pb2_grpc.ControlStub(self.stream.channel)
        self._writer = FrameWriter.attach(
            ring_path(sidecar.directory, 0), hidden_size=HIDDEN, dtype="float32", layers=[LAYER]
        )
        self._rng = np.random.default_rng(2)
        self._key = 100
        self._step = 0

    def snapshot(self) -> BoardSnapshot:
        return until(lambda: self.board.snapshot(np.arange(TOGETHER)), LIMIT_S)

    def serve(self, tell: Callable[[int], int]) -> None:
        """TOGETHER requests from start to end; hidden states of a remaining length in bin i say tell(i)."""
        keys = list(range(self._key, self._key + TOGETHER))
        self._key += TOGETHER
        lengths = self._rng.integers(4, 60, TOGETHER)
        self.stream.send(
            started=[
                trail_pb2.RequestStarted(
                    key=key, request_id=f"r{key}", slot=slot, prompt_token_ids=[1, 2, 3], max_tokens=60
                )
                for slot, key in enumerate(keys)
            ]
        )
        until(lambda: self._open() == TOGETHER, LIMIT_S)
        for at in (0, 1):
            ages = lengths // 2 * at
            vectors = np.zeros((TOGETHER, HIDDEN), np.float32)
            told = [tell(int(i)) for i in BINS.index(lengths - ages)]
            vectors[np.arange(TOGETHER), told] = 1.0
            self._write(keys, ages, Kind.TOKEN if at else Kind.PROMPT, vectors)
        until(lambda: np.array_equal(self.snapshot().rows["age"], lengths // 2), LIMIT_S)
        self.stream.send(
            finished=[
                trail_pb2.RequestFinished(
                    key=key, slot=slot, output_tokens=int(lengths[slot]), finish_reason="stop"
                )
                for slot, key in enumerate(keys)
            ]
        )
        until(lambda: self._open() == 0, LIMIT_S)
        self.finished += TOGETHER

    def close(self) -> None:
        self.stream.close()
        self._writer.close()
        self.board.close()

    def _open(self) -> int:
        description = self._control.Describe(trail_pb2.DescribeRequest())
        return int(description.engines[0].open_requests)

    def _write(self, keys: list[int], ages: np.ndarray, kind: Kind, vectors: np.ndarray) -> None:
        for first in range(0, TOGETHER, 8):
            items = [
                (keys[i], 3 + int(ages[i]), kind, vectors[i]) for i in range(first, min(first + 8, TOGETHER))
            ]
            batch = rows(*items)
            self._step += 1
            self._writer.write(self._step, batch.rows, batch.vectors)


def test_the_board_stops_using_a_permuted_probe_and_comes_back_to_it(
    run_sidecar: Run, permuted_dir: Path
) -> None:
    sidecar = run_sidecar("--quality", "act", predictor=permuted_dir)
    engine = Engine(sidecar, until(sidecar.board, LIMIT_S))
    assert engine.snapshot().header.order
    while engine.snapshot().header.order and engine.finished < 200:
        engine.serve(lambda i: i)
    until(lambda: not engine.snapshot().header.order, LIMIT_S)
    off = engine.finished
    assert off <= 200
    # It is judged on while it is off: hidden states in reverse order make it right.
    while not engine.snapshot().header.order and engine.finished < off + 400:
        engine.serve(lambda i: BINS.k - 1 - i)
    assert until(lambda: engine.snapshot().header.order, LIMIT_S)
    engine.close()
    code, log = sidecar.end()
    assert code == 0
    assert log.count("the probe is worse than nothing: requests are ranked by arrival") == 1
    assert log.count("the probe is better again") == 1


def test_watching_changes_nothing_on_the_board(run_sidecar: Run, permuted_dir: Path) -> None:
    sidecar = run_sidecar("--quality", "watch", predictor=permuted_dir)
    engine = Engine(sidecar, until(sidecar.board, LIMIT_S))
    for _ in range(20):
        engine.serve(lambda i: i)
    assert engine.snapshot().header.order
    engine.close()
    code, log = sidecar.end()
    assert code == 0
    assert "nothing follows, because --quality is watch" in log
