"""A recording that is not whole is not read; one sentence says what is wrong with it, where, what to do."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recording_maker import Truth, make_recording, settings_of, some_prompts

from trail.predict.fingerprint import ModelDescription
from trail.training.recording import Recording, RecordingError, RecordingStore

PROMPTS = some_prompts(5)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    make_recording(tmp_path / "r", PROMPTS, Truth(settings_of(PROMPTS)))
    return tmp_path / "r"


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def edit(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no such directory; make one with trail profile"):
        Recording.open(tmp_path / "r")
    with pytest.raises(RecordingError, match=r"holds no recording\.json"):
        Recording.open(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: flip(s / "layer-003.npy", -1), "content of layer-003.npy is not what was written"),
        (lambda s: flip(s / "requests.npy", -1), "content of requests.npy"),
        (lambda s: (s / "layer-001.npy").write_bytes(b"x"), "layer-001.npy has 1 bytes"),
        (lambda s: (s / "layer-001.npy").unlink(), "No such file"),
        (lambda s: (s / "shard.json").unlink(), "No such file"),
        (lambda s: (s / "shard.json").write_text("{"), "Expecting"),
        (lambda s: (s / "shard.json").write_text("[]"), "list indices"),
        (lambda s: (s / "shard.json").write_text("{}"), "the entry 'files' is missing"),
        (lambda s: edit(s / "shard.json", lambda v: v["files"].pop("rows.npy")), "names other files"),
    ],
)
def test_a_damaged_shard_is_named(recorded: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(recorded / "shard-00001")
    with pytest.raises(RecordingError, match=r"shard-00001 is damaged: .*remove this shard") as caught:
        Recording.open(recorded)
    assert message in str(caught.value)


def test_a_shard_in_the_place_of_another_is_noticed(recorded: Path) -> None:
    (recorded / "shard-00000").rename(recorded / "kept")
    (recorded / "shard-00001").rename(recorded / "shard-00000")
    (recorded / "kept").rename(recorded / "shard-00001")
    with pytest.raises(RecordingError, match="holds other requests than this shard's"):
        Recording.open(recorded)


def test_vectors_can_go_unread(recorded: Path) -> None:
    flip(recorded / "shard-00000" / "layer-001.npy", -1)
    assert len(Recording.open(recorded, check_contents=False).requests) == 10


def test_a_damaged_shard_is_recorded_again(recorded: Path) -> None:
    before = Recording.open(recorded).sha256
    for file in (recorded / "shard-00001").iterdir():
        file.unlink()
    (recorded / "shard-00001").rmdir()
    make_recording(recorded, PROMPTS, Truth(settings_of(PROMPTS)), arrival=5)
    assert Recording.open(recorded).sha256 == before


def test_other_prompts(recorded: Path) -> None:
    flip(recorded / "prompts.jsonl", 22)
    with pytest.raises(RecordingError, match=r"prompts\.jsonl is not what was recorded"):
        Recording.open(recorded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format_version=2), "has format version 2, this TRAIL reads version 1"),
        (lambda v: v["settings"].pop("every"), "the field 'every' is missing"),
        (lambda v: v["settings"].update(every=0), "the field every must be an integer of at least 1, got 0"),
        (lambda v: v["settings"].update(prompts=0), "the field prompts must be an integer of at least 1"),
        (lambda v: v["settings"].update(dtype="int8"), "the field dtype must be one of"),
        (lambda v: v["settings"].update(samples=3), "its shards are not those of its settings"),
        (lambda v: v.pop("shards"), "the field 'shards' is missing"),
        (lambda v: v["settings"].update(layers=[]), "the field layers must be"),
    ],
)
def test_unusable_settings(recorded: Path, change: Callable[[dict[str, object]], None], message: str) -> None:
    edit(recorded / "recording.json", change)
    with pytest.raises(RecordingError, match=r"recording\.json") as caught:
        Recording.open(recorded)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.7}, "temperature was 1.0 and is 0.7"),
        ({"layers": (1, 2, 3)}, "layers was 1 3 and is 1 2 3"),
        ({"samples": 3, "seed": 4}, "samples was 2 and is 3; seed was 0 and is 4"),
        ({"vllm_args": ()}, "vllm-args was --max-num-seqs 4 and is none"),
        ({"prompts_sha256": "0"}, "the prompts have changed"),
        (
            {"model": ModelDescription({}, "other", "weights", 6, 4)},
            "the model's configuration or weights have changed",
        ),
    ],
)
def test_going_on_with_other_settings_is_refused_by_name(
    recorded: Path, changes: dict[str, object], message: str
) -> None:
    with RecordingStore(recorded) as store, pytest.raises(RecordingError, match="other settings") as caught:
        store.begin(settings_of(PROMPTS, **changes), PROMPTS)
    assert f": {message}; give the same" in str(caught.value)


def test_the_revision_follows_from_the_weights(recorded: Path) -> None:
    with RecordingStore(recorded) as store:
        store.begin(dataclasses.replace(settings_of(PROMPTS), model_revision="another"), PROMPTS)


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecordingError, match=r"holds something else than a recording \(notes\.txt\)"):
        RecordingStore(tmp_path)
    with pytest.raises(RecordingError, match="cannot make"):
        RecordingStore(tmp_path / "notes.txt" / "r")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with (
        RecordingStore(tmp_path / "r"),
        pytest.raises(RecordingError, match="another trail profile is writing"),
    ):
        RecordingStore(tmp_path / "r")
    with RecordingStore(tmp_path / "r"):
        pass


@pytest.mark.parametrize("fault", ["missing", "twice", "not due"])
def test_a_shard_with_a_hole_is_never_put_in_place(tmp_path: Path, fault: str) -> None:
    with RecordingStore(tmp_path / "r") as store:
        store.begin(settings_of(PROMPTS, layers=(1,), every=2), PROMPTS)
        plan = store.missing()[0]
        spool = store.spool(plan)
        request = np.array([0, 1, 1, 2, 3])
        age = np.array([0, 0, 2, 0, 0])
        if fault == "missing":
            request, age = request[[0, 1, 3, 4]], age[[0, 1, 3, 4]]
        elif fault == "twice":
            request, age = np.append(request, 1), np.append(age, 2)
        else:
            request, age = np.append(request, 1), np.append(age, 1)
        spool.add(1, request, age, np.zeros((len(age), 6), np.float32))
        words = {
            "missing": "age 2 was not exported",
            "twice": "age 2 came twice",
            "not due": "age 1 came alth",
        }
        with pytest.raises(RecordingError, match=f"layer 1 of request 1 .*{words[fault]}"):
            store.finish(plan, spool, np.array([1, 4, 1, 2]), np.zeros(4, np.bool_))
        assert store.missing()[0] == plan
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["prompts.jsonl", "recording.json"]


def test_what_a_killed_run_left_is_removed(recorded: Path) -> None:
    (recorded / ".spool-shard-00002").mkdir()
    (recorded / ".spool-shard-00002" / "1.rows").write_bytes(b"rows")
    (recorded / ".shard-00002.x1y2").mkdir()
    with RecordingStore(recorded):
        assert [p.name for p in recorded.iterdir() if p.name.startswith(".")] == []
    assert len(Recording.open(recorded).requests) == 10
