"""The judging of finished requests: figures, the constant, cut answers, and who is trusted."""

import dataclasses
import math

import numpy as np
import pytest

from trail.predict.bins import equal_bins
from trail.predict.manifest import Manifest
from trail.predict.online import NO_CORRECTION
from trail.predict.quality import FIT_FROM, EndedRequest, Quality, Standing
from trail.predict.refine import Decoding
from trail.predict.rolling import LENGTHS, PROGRESS, Errors, Judged, figures

BINS = equal_bins(64, 128.0)


@pytest.fixture
def judged_by(manifest: Manifest) -> Manifest:
    held_out = {"mae_refined_tokens": 3.0, "mae_prompt_tokens": 9.0, "mae_constant_tokens": 20}
    decoding = Decoding("pool", 1.0, 1.0, "median")
    return dataclasses.replace(manifest, bins=BINS, decoding=decoding, metrics={"held_out": held_out})


def life(
    length: int, believed: list[float], *, said: float = 0.0, ended: bool = True, limit: int = 0
) -> EndedRequest:
    """A request of which `believed[j]` tokens were thought to remain at age 4 j."""
    ages = 4 * np.arange(len(believed))
    posteriors = np.zeros((len(believed), BINS.k), np.float32)
    posteriors[np.arange(len(believed)), BINS.index(believed)] = 1.0
    return EndedRequest(length, ended, limit, said, ages, posteriors)


def lives(
    seed: int, n: int, *, probe: float, prompt: float | None = None, stretch: float = 1.0
) -> list[EndedRequest]:
    """Requests of 10 to 60 tokens, or `stretch` times as long, whose beliefs are off by a factor e^(probe x).

    x is standard normal. Beliefs are lognormal of that spread, but of 0.3 at most.
    """
    rng = np.random.default_rng(seed)
    found = []
    for length in rng.integers(10, 60, n):
        ages = np.arange(0, length, 4)
        remaining = (length - ages) * np.exp(probe * rng.standard_normal(len(ages)))
        said = 0.0 if prompt is None else float(length * np.exp(prompt * rng.standard_normal()))
        one = life(int(length), list(np.minimum(remaining, 127.0)), said=said)
        off = np.log(BINS.midpoints / remaining[:, None]) / min(probe, 0.3)
        density = np.exp(-0.5 * np.square(off)) / BINS.midpoints + 1e-12
        one = dataclasses.replace(one, posteriors=density / density.sum(axis=1, keepdims=True))
        real = np.floor(ages * stretch).astype(np.int64)
        found.append(dataclasses.replace(one, length=int(length * stretch), ages=real))
    return found


def test_errors_are_those_by_hand(judged_by: Manifest) -> None:
    """In bins two tokens wide, 21 and 13 believed to remain at ages 0 and 4 read as 20.5 and 12.5."""
    (judged,) = Quality(judged_by).judge([life(20, [21.0, 13.0], said=30.0, limit=25)])
    probe, prompt, constant = judged.errors
    assert probe == pytest.approx([0.5, 3.5], abs=1e-4)
    assert prompt == pytest.approx([5.0, 5.0])  # 30 is held to the limit of 25
    assert constant == pytest.approx([5.0, 5.0])  # the artefact's mean of 31.5 as well
    assert judged.level[1] == pytest.approx(1.0, abs=1e-6)


def test_a_request_without_a_prompt_prediction_is_held_against_the_constant(judged_by: Manifest) -> None:
    (judged,) = Quality(judged_by).judge([life(20, [21.0])])
    assert math.isnan(judged.means().prompt)
    quality = Quality(judged_by)
    quality.take(lives(1, 400, probe=0.1))
    assert quality.standing == Standing()
    verdicts = quality.take([life(40, [3.0, 3.0, 3.0])] * 200)
    assert [(verdict.subject, verdict.trusted) for verdict in verdicts] == [("probe", False)]


def test_the_constant_follows_the_lengths_that_come(judged_by: Manifest) -> None:
    quality = Quality(judged_by)
    quality.take([life(100, [99.0])] * 30)
    (judged,) = quality.judge([life(100, [99.0])])
    assert judged.errors[2] == pytest.approx([0.0])


def test_cut_answers_are_no_evidence_but_count_for_the_correction(judged_by: Manifest) -> None:
    quality = Quality(judged_by)
    quality.take([life(60, [10.0, 10.0], ended=False)] * 200)
    snapshot = quality.snapshot()
    assert (snapshot.finished, snapshot.cut, snapshot.last.requests) == (200, 200, 0)
    assert snapshot.probe_evidence == 0.0
    assert snapshot.correction.stretch > 1.5


def test_a_probe_that_turns_bad_is_switched_off_and_comes_back(judged_by: Manifest) -> None:
    quality = Quality(judged_by)
    assert quality.take(lives(1, 600, probe=0.2, prompt=0.5)) == []
    (off,) = quality.take(lives(2, 200, probe=2.5, prompt=0.5))
    assert (off.subject, off.trusted) == ("probe", False)
    assert 600 < off.finished <= 800
    assert off.errors.probe > off.errors.prompt > 0 or off.finished < 700
    assert quality.standing == Standing(probe=False, prompt=True)
    (on,) = quality.take(lives(3, 300, probe=0.2, prompt=0.5))
    assert (on.subject, on.trusted) == ("probe", True)
    assert quality.snapshot().switches == 2


def test_a_bad_prompt_predictor_is_found_and_the_probe_is_not_praised_for_beating_it(
    judged_by: Manifest,
) -> None:
    quality = Quality(judged_by)
    bad = lives(4, 400, probe=0.2, prompt=3.0)
    assert [verdict.subject for verdict in quality.take(bad)] == ["prompt"]
    # Worse than the constant, yet better than that prompt predictor.
    both = lives(5, 400, probe=1.5, prompt=3.5)
    assert [verdict.subject for verdict in quality.take(both)] == ["probe"]
    assert quality.standing == Standing(probe=False, prompt=False)


def test_a_shift_of_lengths_is_followed_and_no_shift_is_left_alone(judged_by: Manifest) -> None:
    same, longer = Quality(judged_by), Quality(judged_by)
    same.take(lives(6, 500, probe=0.3))
    assert same.correction.stretch == pytest.approx(1.0, abs=0.1)
    longer.take(lives(6, 500, probe=0.3, stretch=1.5))
    assert longer.correction.stretch == pytest.approx(1.5, rel=0.15)


def test_nothing_is_corrected_before_there_are_enough_requests(judged_by: Manifest) -> None:
    quality = Quality(judged_by)
    quality.take(lives(6, FIT_FROM - 1, probe=0.3, stretch=1.5))
    assert quality.correction == NO_CORRECTION
    quality.take(lives(7, 1, probe=0.3, stretch=1.5))
    assert quality.correction != NO_CORRECTION


def test_order_of_batches_does_not_matter_before_the_first_fit(judged_by: Manifest) -> None:
    whole, single = Quality(judged_by), Quality(judged_by)
    some = lives(8, FIT_FROM - 1, probe=0.4, prompt=0.5)
    # The constant is taken before each batch, so the artefact's holds for both while few are judged.
    whole.take(some[:15])
    for one in some[:15]:
        single.take([one])
    a, b = whole.snapshot(), single.snapshot()
    assert a.last.errors.probe == pytest.approx(b.last.errors.probe)
    assert a.probe_evidence == pytest.approx(b.probe_evidence)


def test_the_artefacts_own_figures_stand_beside(judged_by: Manifest, manifest: Manifest) -> None:
    assert Quality(judged_by).snapshot().artefact == Errors(probe=3.0, prompt=9.0, constant=20.0)
    other = Quality(manifest).snapshot().artefact
    assert all(math.isnan(value) for value in dataclasses.astuple(other))


def test_figures_weigh_decode_steps() -> None:
    """Two requests, 5 and 101 tokens: 4 decode steps with error 10 and 100 with error 1."""
    short = Judged(5, np.array([0, 2]), np.array([[99.0, 10.0]] * 3), np.array([0.5, 0.5]))
    long = Judged(101, np.array([0, 40, 80]), np.array([[99.0, 1.0, 1.0]] * 3), np.array([0.5, 0.95, 0.2]))
    found = figures([short, long])
    assert found.requests == 2
    assert found.errors.probe == pytest.approx((4 * 10 + 100 * 1) / 104)
    assert found.by_length["1-31"] == pytest.approx(10.0)
    assert found.by_length["32-127"] == pytest.approx(1.0)
    assert math.isnan(found.by_length["2048-"])
    assert found.by_progress["30-40%"] == pytest.approx(1.0)
    assert found.by_progress["40-50%"] == pytest.approx(10.0)
    assert found.by_progress["70-80%"] == pytest.approx(1.0)
    assert found.coverage80 == pytest.approx((4 + 40.5) / 104)
    assert tuple(found.by_progress) == PROGRESS
    assert tuple(found.by_length) == LENGTHS


def test_perfectly_calibrated_levels_have_no_calibration_error() -> None:
    levels = (np.arange(1000) + 0.5) / 1000
    age = np.arange(1, 1001)
    exact = figures([Judged(1001, age, np.ones((3, 1000)), levels)])
    assert exact.calibration_error == pytest.approx(0.0, abs=1e-9)
    assert exact.coverage80 == pytest.approx(0.8)
    narrow = figures([Judged(1001, age, np.ones((3, 1000)), np.round(levels))])
    assert narrow.calibration_error > 0.2
    assert narrow.coverage80 == 0.0


def test_no_requests_give_no_figures() -> None:
    assert figures([]).requests == 0
    assert math.isnan(figures([]).errors.probe)
