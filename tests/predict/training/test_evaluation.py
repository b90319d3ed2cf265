"""The comparison of predictors counts every decode step once and uses the deployed refinement."""

import numpy as np
import pytest

from trail.predict.bins import equal_bins
from trail.predict.probe import Probe
from trail.predict.refine import Refiner
from trail.predict.training.evaluation import Sequences, evaluate_sequences, predict_sequences

BINS = equal_bins(4, 64.0)
HIDDEN_SIZE = 3
PROBE = Probe.untrained(HIDDEN_SIZE, BINS, 1, units=8, seed=2)


def sequences(ages: list[list[int]], lengths: list[int]) -> Sequences:
    flat = np.concatenate([np.array(part) for part in ages])
    vectors = 5 * np.random.default_rng(0).normal(size=(len(flat), HIDDEN_SIZE)).astype(np.float32)
    offsets = np.cumsum([0, *(len(part) for part in ages)])
    return Sequences(vectors, flat, offsets, np.array(lengths), prompt_tokens=np.full(len(lengths), 5))


RECORDED = sequences([[0, 1, 2, 3], [0], [0, 1, 5, 6, 9]], [4, 30, 12])


def test_predictions_are_those_of_following_each_request_alone() -> None:
    raw, refined = predict_sequences(RECORDED, PROBE)
    refiner = Refiner(BINS)
    for begin, end in zip(RECORDED.offsets, RECORDED.offsets[1:], strict=False):
        q = refiner.start(PROBE.predict(RECORDED.vectors[begin : begin + 1]))
        for row in range(begin, end):
            p = PROBE.predict(RECORDED.vectors[row : row + 1])
            if row > begin:
                q = refiner.step(q, p, int(RECORDED.ages[row] - RECORDED.ages[row - 1]))
            assert raw[row] == pytest.approx(refiner.tokens(refiner.start(p))[0], rel=1e-5)
            assert refined[row] == pytest.approx(refiner.tokens(q)[0], rel=1e-5)


def test_errors_are_means_over_decode_steps_by_hand() -> None:
    prompt = np.array([2.0, 10.0, 20.0])
    result = evaluate_sequences(RECORDED, PROBE, constant_tokens=3.0, prompt_tokens=prompt)
    # remaining at ages 1, 2, 3 of 4 tokens, then at 1, 5, 6, 9 of 12
    remaining = np.array([3, 2, 1, 11, 7, 6, 3])
    counted_down = np.array([1, 0, 0, 19, 15, 14, 11])
    assert result["requests"] == 3
    assert result["rows"] == 7
    assert result["mae_constant_tokens"] == pytest.approx(np.abs(3 - remaining).mean())
    assert result["mae_prompt_tokens"] == pytest.approx(np.abs(counted_down - remaining).mean())
    assert result["mae_initial_prompt_tokens"] == pytest.approx(np.mean([2, 20, 8]))
    raw, refined = predict_sequences(RECORDED, PROBE)
    decode = RECORDED.ages > 0
    assert result["mae_raw_tokens"] == pytest.approx(np.abs(raw[decode] - remaining).mean())
    assert result["mae_refined_tokens"] == pytest.approx(np.abs(refined[decode] - remaining).mean())
    initial = np.abs(raw[~decode] - [4, 30, 12]).mean()
    assert result["mae_initial_probe_tokens"] == pytest.approx(initial)


def test_without_prompt_predictions_none_are_judged() -> None:
    assert not any("prompt" in name for name in evaluate_sequences(RECORDED, PROBE, constant_tokens=3.0))


def test_requests_of_one_row_have_no_decode_error() -> None:
    result = evaluate_sequences(sequences([[0], [0]], [4, 5]), PROBE, constant_tokens=3.0)
    assert set(result) == {"requests", "rows", "mae_initial_probe_tokens"}


@pytest.mark.parametrize(
    ("ages", "lengths", "names"),
    [
        ([[1, 2]], [4], "ascend from 0"),
        ([[0, 2, 2]], [4], "ascend from 0"),
        ([[0, 1], [0, 1]], [4, 0], "beyond the whole output length"),
        ([[0, 1]], [4, 5], "at least one row"),
    ],
)
def test_recordings_that_contradict_themselves_are_refused(
    ages: list[list[int]], lengths: list[int], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        sequences(ages, lengths)
