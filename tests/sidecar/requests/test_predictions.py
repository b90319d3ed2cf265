"""What is kept of the predictions along a request's life, however long it becomes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.sidecar.requests import predictions
from trail.sidecar.requests.predictions import SAMPLES, PredictionHistories


def stride_of(made: int, kept: int) -> int:
    stride = 1
    while -(-made // stride) > kept:
        stride *= 2
    return stride


@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_every_strideth_prediction_is_kept(counts: list[int], seed: int) -> None:
    """Requests of so many predictions, at random times, share two slots one after another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "POINTS", 16)
        histories = PredictionHistories(4, 3)
    rng = np.random.default_rng(seed)
    for turn in range(0, len(counts), 2):
        wanted = counts[turn : turn + 2]
        slots = np.array([1, 3])[: len(wanted)]
        for slot in slots.tolist():
            histories.begin(slot)
        made = np.zeros(len(slots), np.int64)
        while (made < wanted).any():
            chosen = np.flatnonzero((made < wanted) & (rng.random(len(slots)) < 0.7))
            if not len(chosen):
                continue
            ages = 10 * made[chosen]
            posteriors = np.repeat(ages[:, np.newaxis], 3, axis=1).astype(np.float64)
            histories.take(slots[chosen], made[chosen], ages, ages + 0.5, posteriors)
            made[chosen] += 1
        for slot, count in zip(slots.tolist(), wanted, strict=True):
            history = histories.of(slot, count)
            ages = np.arange(0, 10 * count, 10)
            assert history.ages.tolist() == ages[:: stride_of(count, 16)].tolist()
            assert history.lengths.tolist() == (history.ages + 0.5).tolist()
            assert history.sampled_ages.tolist() == ages[:: stride_of(count, SAMPLES)].tolist()
            assert history.posteriors[:, 0].tolist() == history.sampled_ages.tolist()
            assert not len(histories.of(slot, 0).ages)
