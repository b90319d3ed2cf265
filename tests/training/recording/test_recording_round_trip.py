"""What was recorded is what is read, whatever the order in which it came and however often it was cut off."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_maker import HIDDEN, Truth, make_recording, settings_of, some_prompts

from trail.predict.training.split import held_out_prompts
from trail.training.recording import Recording, RecordingError, RecordingStore
from trail.training.recording.layout import due_rows, narrowed, row_counts, widened
from trail.training.recording.vectors import RecordedVectors


@settings(max_examples=25)
@given(
    prompts=st.integers(1, 6),
    samples=st.integers(1, 3),
    shard_requests=st.integers(1, 7),
    every=st.integers(1, 4),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    seed=st.integers(0, 2**20),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    prompts: int,
    samples: int,
    shard_requests: int,
    every: int,
    dtype: str,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("recording")
    asked = some_prompts(prompts, seed)
    chosen_settings = settings_of(
        asked, samples=samples, shard_requests=shard_requests, every=every, dtype=dtype
    )
    truth = Truth(chosen_settings, seed)
    make_recording(path, asked, truth, arrival=seed)
    recording = Recording.open(path)
    n = prompts * samples
    assert recording.settings == chosen_settings
    assert recording.prompts == [p.token_ids for p in asked]
    assert recording.kinds == ([p.kind or "" for p in asked] if prompts > 1 else None)
    assert recording.requests.prompt_index.tolist() == [i // samples for i in range(n)]
    assert recording.requests.sample.tolist() == [i % samples for i in range(n)]
    assert np.array_equal(recording.requests.output_tokens, truth.lengths)
    assert np.array_equal(recording.requests.censored, truth.censored)
    subset = np.random.default_rng(seed).random(n) < 0.5
    subset[seed % n] = True
    for layer in recording.layers:
        for chosen in (None, subset):
            sequences = recording.sequences(layer, chosen)
            which = np.ones(n, np.bool_) if chosen is None else chosen
            assert np.array_equal(sequences.vectors[:], truth.rows(layer, which))
            request, age = due_rows(truth.lengths[which], every)
            assert np.array_equal(sequences.ages, age)
            assert np.array_equal(np.diff(sequences.offsets), np.bincount(request))
            assert np.array_equal(sequences.lengths, truth.lengths[which])
            assert np.array_equal(sequences.censored, truth.censored[which])
            lengths = [len(asked[i // samples].token_ids) for i in np.flatnonzero(which)]
            assert sequences.prompt_tokens.tolist() == lengths


@given(st.data())
def test_gathering_from_parts_is_gathering_from_their_concatenation(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    whole = np.random.default_rng(0).normal(size=(sum(sizes), HIDDEN)).astype(np.float32)
    parts = np.split(whole, np.cumsum(sizes)[:-1])
    picked = data.draw(st.none() | st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=9))
    plain = whole if picked is None else whole[picked]
    vectors = RecordedVectors(parts, None if picked is None else np.array(picked))
    assert (vectors.shape, vectors.ndim, vectors.dtype, len(vectors)) == (
        plain.shape, 2, np.float32, len(plain)
    )  # fmt: skip
    index = np.array(data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=12)), np.int64)
    assert np.array_equal(vectors[index], plain[index])
    edges = st.none() | st.integers(-10, 20)
    cut = slice(data.draw(edges), data.draw(edges), data.draw(st.sampled_from([None, 1, 2, -1])))
    assert np.array_equal(vectors[cut], plain[cut])


@pytest.mark.parametrize("index", [np.array([7]), np.array([-1]), np.array([True] * 7), np.array([[0]])])
def test_other_row_numbers_are_refused(index: np.ndarray) -> None:
    with pytest.raises(IndexError, match="row numbers"):
        RecordedVectors([np.zeros((7, HIDDEN), np.float32)])[index]


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_stored_bfloat16_survives_the_way_through_float32(bits: list[int]) -> None:
    stored = np.array([bits], np.uint16)
    assert np.array_equal(narrowed(widened(stored), "bfloat16"), stored)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.integers(1, 9))
def test_due_rows_are_the_prompt_and_every_kth_token_but_the_last(lengths: list[int], every: int) -> None:
    plain = [(i, age) for i, n in enumerate(lengths) for age in range(0, n, every)]
    request, age = due_rows(np.array(lengths), every)
    assert list(zip(request.tolist(), age.tolist(), strict=True)) == plain
    assert int(row_counts(np.array(lengths), every).sum()) == len(plain)


def test_an_interrupted_recording_becomes_the_uninterrupted_one(tmp_path: Path) -> None:
    prompts = some_prompts(7)
    truth = Truth(settings_of(prompts))
    make_recording(tmp_path / "whole", prompts, truth)
    make_recording(tmp_path / "cut", prompts, truth, arrival=1, shards=1)
    with pytest.raises(RecordingError, match=r"3 of 4 shards are missing, the first is shard-00001"):
        Recording.open(tmp_path / "cut")
    make_recording(tmp_path / "cut", prompts, truth, arrival=2, shards=2)
    make_recording(tmp_path / "cut", prompts, truth, arrival=3)
    cut, whole = Recording.open(tmp_path / "cut"), Recording.open(tmp_path / "whole")
    assert cut.sha256 == whole.sha256
    assert (
        len(cut.requests) == len(set(zip(cut.requests.prompt_index, cut.requests.sample, strict=True))) == 14
    )
    with RecordingStore(tmp_path / "cut") as store:
        assert store.missing() == []
        size = sum(f.stat().st_size for f in (tmp_path / "cut").glob("shard-*/*"))
        assert store.size() == (size, 14)


def test_other_content_has_another_checksum(tmp_path: Path) -> None:
    prompts = some_prompts(3)
    for name, seed in (("a", 0), ("b", 1)):
        make_recording(tmp_path / name, prompts, Truth(settings_of(prompts), seed))
    assert Recording.open(tmp_path / "a").sha256 != Recording.open(tmp_path / "b").sha256


def test_training_splits_a_recording_by_prompt(tmp_path: Path) -> None:
    """The way in which training takes it: by request, without the vectors in memory."""
    prompts = some_prompts(20)
    truth = Truth(settings_of(prompts))
    make_recording(tmp_path / "r", prompts, truth)
    recording = Recording.open(tmp_path / "r", check_contents=False)
    held_out = held_out_prompts(recording.prompts, 0.3)[recording.requests.prompt_index]
    train, test = recording.sequences(3, ~held_out), recording.sequences(3, held_out)
    assert len(train.vectors) + len(test.vectors) == len(truth.rows(3))
    assert np.array_equal(test.vectors[:], truth.rows(3, held_out))
    assert len(test.rows()) == len(test.vectors)


@pytest.mark.parametrize(
    ("layer", "chosen", "message"),
    [
        (2, None, "layer 2 was not recorded, these were: 1, 3"),
        (1, np.ones(3, np.bool_), r"chosen must be bool \[6\]"),
        (1, np.ones(6, np.int64), r"chosen must be bool \[6\]"),
    ],
)
def test_sequences_that_are_not_there(
    tmp_path: Path, layer: int, chosen: np.ndarray | None, message: str
) -> None:
    prompts = some_prompts(3)
    make_recording(tmp_path / "r", prompts, Truth(settings_of(prompts)))
    with pytest.raises(ValueError, match=message):
        Recording.open(tmp_path / "r").sequences(layer, chosen)
