"""From a model runner's tensors to frames in the ring, with stand-ins for vLLM's objects and a real ring."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from trail.engine.export.hook import Exporter, ExportError
from trail.engine.export.sink import Sink
from trail.engine.export.tracker import Tracker
from trail.engine.export.transfer import STAGES, DirectTransfer, Stage, StreamTransfer, dtype_name
from trail.engine.report.stats import StatsFile, Timing
from trail.wire.frames import Frame, FrameReader, Kind, RingSpec
from trail.wire.keys import request_key

HIDDEN = 8
ROWS = 16
LIMIT_NS = 60_000_000_000


def runner(rows: list[tuple[str, int, int]], layers: list[torch.Tensor]) -> Any:
    """What the V1 runner shows after a step; `rows` are (request, computed before, tokens in this step)."""
    starts = np.concatenate([[0], np.cumsum([n for _, _, n in rows])]).astype(np.int32)
    return SimpleNamespace(
        execute_model_state=SimpleNamespace(aux_hidden_states=layers),
        query_start_loc=SimpleNamespace(np=np.concatenate([starts, [0, 0]])),
        input_batch=SimpleNamespace(
            num_reqs=len(rows),
            req_ids=[name for name, _, _ in rows],
            num_computed_tokens_cpu=np.array([c for _, c, _ in rows] + [99], np.int32),
        ),
    )


def scheduled(new: dict[str, int] | None = None, finished: set[str] = frozenset()) -> Any:  # type: ignore[assignment]  # an empty set
    """vLLM's SchedulerOutput, as far as the export looks at it."""
    requests = [
        SimpleNamespace(req_id=name, prompt_token_ids=list(range(tokens)), prompt_embeds=None)
        for name, tokens in (new or {}).items()
    ]
    return SimpleNamespace(scheduled_new_reqs=requests, finished_req_ids=finished)


class Bench:
    """An exporter on a ring of its own; `step` runs one step and remembers the tensors it was given."""

    def __init__(
        self,
        directory: Path,
        layers: tuple[int, ...],
        dtype: torch.dtype,
        transfer: Any = None,
        *,
        lossless: bool = False,
    ) -> None:
        path = directory / "frames-0.ring"
        self.reader = FrameReader.create(path, RingSpec(hidden_size=HIDDEN, lossless=lossless))
        self.reader.beat()
        self.dtype, self.layers, self.hidden = dtype, layers, [torch.zeros(0)]
        self.sink = Sink(
            path, hidden_size=HIDDEN, dtype=dtype_name(dtype), layers=layers, heartbeat_ns=LIMIT_NS
        )
        make: Callable[..., Any] = transfer or DirectTransfer
        self.transfer = make(self.sink, rows=ROWS * len(layers), hidden_size=HIDDEN, dtype=dtype)
        self.exporter = Exporter(
            layers=layers, tracker=Tracker(), transfer=self.transfer, hidden_states=lambda: self.hidden
        )
        self.generator = torch.Generator().manual_seed(3)

    def step(self, rows: list[tuple[str, int, int]], **output: Any) -> list[torch.Tensor]:
        tokens = sum(n for _, _, n in rows)
        self.hidden = [
            torch.randn((tokens + 3, HIDDEN), generator=self.generator).to(self.dtype) for _ in self.layers
        ]
        self.exporter.step(scheduled(**output), runner(rows, self.hidden))
        return self.hidden


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_prompt_in_chunks_gives_its_mean_and_tokens_their_own_vector(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    bench = Bench(tmp_path, (2, 5), dtype)
    first = bench.step([("a", 0, 4), ("b", 7, 1)], new={"a": 6, "b": 7})
    second = bench.step([("b", 8, 1), ("a", 4, 2)])
    frames = bench.reader.read()
    assert [frame.rows["layer"].tolist() for frame in frames] == [[2, 5], [2, 2, 5, 5]]
    for at in range(2):
        assert np.array_equal(frames[0].vectors[at], first[at][4].float().numpy())
        token, prompt = frames[1].rows[2 * at], frames[1].rows[2 * at + 1]
        assert (int(token["key"]), token["kind"], token["position"]) == (request_key("b"), Kind.TOKEN, 9)
        assert (int(prompt["key"]), prompt["kind"], prompt["pooled"]) == (request_key("a"), Kind.PROMPT, 6)
        assert np.array_equal(frames[1].vectors[2 * at], second[at][0].float().numpy())
        mean = torch.cat([first[at][:4], second[at][1:3]]).float().mean(0).to(dtype)
        assert np.allclose(
            frames[1].vectors[2 * at + 1],
            mean.float().numpy(),
            rtol=1e-2 if dtype != torch.float32 else 1e-6,
            atol=1e-6,
        )


def test_a_prefix_cache_hit_gives_the_last_prompt_token(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (1,), torch.float32)
    hidden = bench.step([("a", 32, 5)], new={"a": 37})
    (frame,) = bench.reader.read()
    assert frame.rows["pooled"].tolist() == [1]
    assert np.array_equal(frame.vectors[0], hidden[0][4].numpy())


def test_without_a_reader_nothing_is_computed_and_requests_are_still_followed(tmp_path: Path) -> None:
    sink = Sink(
        tmp_path / "none.ring", hidden_size=HIDDEN, dtype="float32", layers=(1,), heartbeat_ns=LIMIT_NS
    )

    def never() -> list[torch.Tensor]:
        raise AssertionError("hidden states were asked for")

    tracker = Tracker()
    transfer = DirectTransfer(sink, ROWS, HIDDEN, torch.float32)
    exporter = Exporter(layers=(1,), tracker=tracker, transfer=transfer, hidden_states=never)
    exporter.step(scheduled(new={"a": 4}), runner([("a", 0, 4)], []))
    assert len(tracker) == 1
    exporter.step(scheduled(finished={"a"}), SimpleNamespace(execute_model_state=None))
    assert len(tracker) == 0


def test_a_step_without_tokens_exports_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (1,), torch.float32)
    bench.exporter.step(scheduled(), SimpleNamespace(execute_model_state=None))
    assert bench.reader.read() == []


def test_a_model_that_returns_other_layers_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (1, 2), torch.float32)
    bench.hidden = [torch.zeros((3, HIDDEN))]
    with pytest.raises(ExportError, match="returned 1 layers"):
        bench.exporter.step(scheduled(new={"a": 3}), runner([("a", 0, 3)], bench.hidden))


class LateCopier:
    """An accelerator whose copies complete when the test says so; until then the host holds rubbish."""

    def __init__(self) -> None:
        self.may_finish = threading.Semaphore(0)

    def new_stage(self, rows: int, hidden_size: int, dtype: torch.dtype) -> Stage:
        device = torch.empty((rows, hidden_size), dtype=dtype)
        host = torch.full((rows, hidden_size), 777.0, dtype=dtype)
        return Stage(device, torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.int64), host)

    def start_copy(self, stage: Stage, rows: int) -> None:
        stage.copied = rows

    def wait(self, stage: Stage) -> None:
        assert self.may_finish.acquire(timeout=60)
        stage.vectors_host[: stage.copied] = stage.vectors[: stage.copied]


def on_stream(copier: LateCopier) -> Callable[..., StreamTransfer]:
    def make(sink: Sink, rows: int, hidden_size: int, dtype: torch.dtype) -> StreamTransfer:
        sink.tend(time.monotonic_ns())
        return StreamTransfer(sink, copier, rows, hidden_size, dtype)

    return make


def frames_until(reader: FrameReader, count: int) -> list[Frame]:
    found: list[Frame] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        reader.beat()
        found += reader.read()
        time.sleep(0.001)
    return found


def test_on_a_stream_the_frame_is_written_once_the_copy_is_complete(tmp_path: Path) -> None:
    copier = LateCopier()
    bench = Bench(tmp_path, (2, 5), torch.float32, on_stream(copier))
    steps = [bench.step([("a", 0, 4)], new={"a": 4}), bench.step([("a", 4, 1)])]
    assert bench.reader.read() == []
    copier.may_finish.release()
    copier.may_finish.release()
    frames = frames_until(bench.reader, 2)
    assert np.allclose(frames[0].vectors[0], steps[0][0][:4].mean(0).numpy())
    assert np.array_equal(frames[1].vectors, torch.stack([h[0] for h in steps[1]]).numpy())
    bench.transfer.close()


def test_on_a_stream_a_lossless_ring_makes_the_step_wait_for_a_stage(tmp_path: Path) -> None:
    copier = LateCopier()
    bench = Bench(tmp_path, (2,), torch.float32, on_stream(copier), lossless=True)
    steps = STAGES + 3
    release = threading.Timer(0.2, lambda: [copier.may_finish.release() for _ in range(steps)])
    release.start()
    expected = [bench.step([("a", 4 + age, 1)], new={"a": 4} if age == 0 else None) for age in range(steps)]
    frames = frames_until(bench.reader, steps)
    release.join()
    assert bench.transfer.dropped == 0
    for frame, hidden in zip(frames, expected, strict=True):
        assert np.array_equal(frame.vectors[0], hidden[0][0].numpy())
    bench.transfer.close()


def test_on_a_stream_a_step_that_finds_no_stage_is_dropped_and_the_pending_ones_stay_whole(
    tmp_path: Path,
) -> None:
    copier = LateCopier()
    bench = Bench(tmp_path, (2,), torch.float32, on_stream(copier))
    expected = [bench.step([("a", 4, 1)], new={"a": 4})[0][0]]
    for age in range(1, STAGES + 3):
        hidden = bench.step([("a", 4 + age, 1)])
        expected.append(hidden[0][0])
    assert bench.transfer.dropped == 3
    for _ in range(STAGES):
        copier.may_finish.release()
    frames = frames_until(bench.reader, STAGES)
    assert np.array_equal(np.concatenate([f.vectors for f in frames]), torch.stack(expected[:STAGES]).numpy())
    assert [int(f.rows["position"][0]) for f in frames] == [5 + i for i in range(STAGES)]
    bench.transfer.close()


def test_timings_are_written_as_json(tmp_path: Path) -> None:
    timing = Timing()
    for us in range(1, 1001):
        timing.add(us * 1000)
    StatsFile(tmp_path / "export-0.json", {"export_us": timing}, {"steps": 7}).maybe_write(1)
    found = json.loads((tmp_path / "export-0.json").read_text())
    assert found["export_us"]["count"] == 1000
    assert found["export_us"]["p50"] == pytest.approx(500, rel=0.06)
    assert found["export_us"]["p99"] == pytest.approx(990, rel=0.06)
    assert found["counters"] == {"steps": 7}
    assert [p.name for p in tmp_path.iterdir()] == ["export-0.json"]


def test_timings_pass_over_a_directory_that_is_gone(tmp_path: Path) -> None:
    StatsFile(tmp_path / "gone" / "export-0.json", {"export_us": Timing()}, {}).write()
    assert list(tmp_path.iterdir()) == []


def test_newest_tokens_are_exported_no_more_often_than_the_reader_looks_and_prompts_always(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, (1,), torch.float32)
    bench.step([("a", 0, 3)], new={"a": 3})
    bench.reader.say_interval(99_000_000)
    for computed in (3, 4, 5):
        bench.step([("a", computed, 1)])
    bench.step([("a", 6, 1), ("b", 0, 2)], new={"b": 2})
    rows = [(Kind(r["kind"]), int(r["position"])) for f in bench.reader.read() for r in f.rows]
    # The first token comes before the interval was seen at most; the prompt of b comes whatever the interval.
    assert rows[0] == (Kind.PROMPT, 3)
    assert rows[-1] == (Kind.PROMPT, 2)
    assert len(rows) <= 3
    bench.reader.say_interval(0)
    hidden = bench.step([("a", 7, 1), ("b", 2, 1)])
    (frame,) = bench.reader.read()
    assert frame.rows["position"].tolist() == [8, 3]
    assert np.array_equal(frame.vectors, hidden[0][:2].numpy())
