"""A run records every request of every missing shard whole, or says what is wrong and keeps what is whole."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine, outcome, vector
from recording_maker import HIDDEN, settings_of, some_prompts

from trail.serving.offline import EngineError
from trail.training.profile import recorder as recorder_module
from trail.training.profile.collector import ExportError
from trail.training.profile.estimate import DiskUse, NoRoomError, check_room, longest_outputs, size_text
from trail.training.profile.recorder import Recorder, sampling_seed
from trail.training.recording import Recording, RecordingStore
from trail.training.recording.settings import ShardPlan

PROMPTS = some_prompts(9)


class Heard:
    """Progress as it was told."""

    def __init__(self) -> None:
        self.tokens, self.shards, self.lines = 0, [], []

    def request_done(self, tokens: int) -> None:
        self.tokens += tokens

    def shard_done(self, plan: ShardPlan, size_bytes: int) -> None:
        self.shards.append(plan.name)

    def say(self, line: str) -> None:
        self.lines.append(line)


def record(path: Path, slots: int = 4, every: int = 1, *, late: bool = False, **faults: int) -> Heard:
    """One run into `path`; what it left behind is checked whatever happened."""
    settings = settings_of(PROMPTS, every=every)
    heard = Heard()
    engine = FakeEngine(
        path.with_name("ring"), layers=settings.layers, hidden_size=HIDDEN, every=every, late=late, **faults
    )
    try:
        with RecordingStore(path) as store:
            store.begin(settings, PROMPTS)
            Recorder(store, settings, PROMPTS, engine, engine.ring, slots=slots, progress=heard).record()
    finally:
        engine.close()
        assert [p for p in path.iterdir() if p.name.startswith(".")] == []
    return heard


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("slots", [1, 4, 100])
def test_a_run_records_every_request(tmp_path: Path, every: int, slots: int) -> None:
    heard = record(tmp_path / "r", slots, every)
    recording = Recording.open(tmp_path / "r")
    requests = recording.requests
    assert len(requests) == 18
    assert sorted(heard.shards) == [f"shard-{i:05d}" for i in range(5)]
    assert heard.tokens == requests.output_tokens.sum()
    for i in range(18):
        prompt = recording.prompts[requests.prompt_index[i]]
        seed = sampling_seed(0, int(requests.prompt_index[i]), int(requests.sample[i]))
        tokens, reason = outcome(prompt, seed, 20)
        assert (requests.output_tokens[i], requests.censored[i]) == (tokens, reason == "length")
        for layer in recording.layers:
            own = recording.sequences(layer, np.arange(18) == i)
            expected = [vector(layer, seed, age, HIDDEN) for age in range(0, tokens, every)]
            assert np.array_equal(own.vectors[:], expected)
    assert 0 < requests.censored.sum() < 18


def test_the_next_shard_is_sent_before_the_present_one_ends(tmp_path: Path) -> None:
    settings = settings_of(PROMPTS, temperature=0.7, top_p=0.9)
    engine = FakeEngine(tmp_path / "ring", layers=settings.layers, hidden_size=HIDDEN)
    with RecordingStore(tmp_path / "r") as store:
        store.begin(settings, PROMPTS)
        Recorder(store, settings, PROMPTS, engine, engine.ring, slots=6, progress=Heard()).record()
    assert engine.batches[:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [number for batch in engine.batches for number in batch] == list(range(18))
    assert engine.sampling.keys() == {"temperature", "top_p", "max_tokens", "seed"}
    assert (engine.sampling["temperature"], engine.sampling["top_p"]) == (0.7, 0.9)
    engine.close()


def test_seeds_follow_from_the_place_in_the_recording_alone() -> None:
    seeds = {sampling_seed(s, p, k) for s in range(3) for p in range(50) for k in range(4)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sampling_seed(1, 2, 3) == sampling_seed(1, 2, 3)


@pytest.mark.parametrize("fault", ["interrupt", "die"])
def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, fault: str) -> None:
    record(tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, EngineError)):
        record(tmp_path / "cut", **{fault: 9})
    kept = [p.name for p in sorted((tmp_path / "cut").glob("shard-*"))]
    assert 0 < len(kept) < 5
    heard = record(tmp_path / "cut")
    assert sorted([*kept, *heard.shards]) == [f"shard-{i:05d}" for i in range(5)]
    assert heard.lines[0].startswith("disk: about")
    assert Recording.open(tmp_path / "cut").sha256 == Recording.open(tmp_path / "whole").sha256


def test_rows_may_come_after_the_answer(tmp_path: Path) -> None:
    record(tmp_path / "r")
    record(tmp_path / "late", late=True)
    assert Recording.open(tmp_path / "late").sha256 == Recording.open(tmp_path / "r").sha256


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hole", r"shard-00001: layer 1 of request 2 of the shard: the row of age 0 was not exported"),
        ("cached", r"covers 1 of its \d+ tokens: .*without prefix caching"),
        ("abort", r"vLLM ended request 6 with 'abort'"),
    ],
)
def test_what_the_engine_does_wrong_ends_the_run_loudly(
    tmp_path: Path, fault: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_LATE_S", 0.2)
    assert len(PROMPTS[3].token_ids) > 1
    with pytest.raises(ExportError, match=message):
        record(tmp_path / "r", slots=1, **{fault: 6})
    assert [p.name for p in (tmp_path / "r").glob("shard-*")] == ["shard-00000"]
    record(tmp_path / "r")
    assert len(Recording.open(tmp_path / "r").requests) == 18


Usage = namedtuple("Usage", "free")


def test_a_full_disk_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use = DiskUse.of(settings_of(PROMPTS))
    lengths = np.array([len(p.token_ids) for p in PROMPTS])
    most = use.bytes_of(longest_outputs(lengths, settings_of(PROMPTS)))
    first = use.bytes_of(np.full(4, 20))
    free = [first]
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(free[0]))
    with pytest.raises(NoRoomError, match=r"the first shard may need about .* make room, or record less"):
        record(tmp_path / "r")
    assert list((tmp_path / "r").glob("shard-*")) == []
    free[0] = 2 * first  # enough for a shard, not for all
    with pytest.raises(NoRoomError, match="shards still to come, by the lengths so far, need about"):
        record(tmp_path / "r")
    assert [p.name for p in (tmp_path / "r").glob("shard-*")] == ["shard-00000"]
    free[0] = most
    record(tmp_path / "r")
    size = sum(f.stat().st_size for f in (tmp_path / "r").glob("shard-*/*.npy"))
    exact = use.bytes_of(Recording.open(tmp_path / "r").requests.output_tokens)
    headers = 5 * (3 * 128 + 192)  # of four arrays in each of five shards
    assert size == exact + headers
    assert exact <= most


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_340_000, "12.3 MB"), (2e15, "2000.0 TB")],
)
def test_sizes_are_for_people(size: float, text: str) -> None:
    assert size_text(size) == text


def test_room_that_is_there_is_not_complained_about(tmp_path: Path) -> None:
    check_room(tmp_path, 1, "nothing")
