"""On the demo model's own answers: spoilt probes are found in time, the trained one is left alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import __main__ as command
from benchmarks.drift.answers import Answers, record_answers
from benchmarks.drift.lives import FAULTS, lives, sample_stride, stretched
from benchmarks.drift.runs import advantages, alarms_at_equality, requests_until
from trail.predict.quality import EndedRequest, Quality
from trail.report.stages import shown
from trail.sidecar.requests.predictions import SAMPLES

PERMUTED = [fault for fault in FAULTS if "permuted" in fault.name]


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    with shown() as stages:
        yield record_answers(150, 77, stages)


@pytest.fixture(scope="module")
def good(answers: Answers) -> list[EndedRequest]:
    return lives(answers, answers.outputs)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("fault", PERMUTED, ids=lambda fault: fault.name)
def test_a_permuted_probe_is_off_within_200_requests_and_back_when_it_is_mended(
    answers: Answers, good: list[EndedRequest], fault: object, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bad = lives(answers, fault.spoil(answers.outputs, rng))  # type: ignore[attr-defined]
    quality = Quality(answers.manifest)
    assert requests_until(quality, good, trusted=False, most=400, rng=rng) is None
    assert requests_until(quality, bad, trusted=False, most=200, rng=rng) is not None
    assert requests_until(quality, good, trusted=True, most=400, rng=rng) is not None


@pytest.mark.parametrize("seed", [1, 2])
def test_the_trained_probe_is_never_switched_off_in_5000(
    answers: Answers, good: list[EndedRequest], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    quality = Quality(answers.manifest)
    assert requests_until(quality, good, trusted=False, most=5000, rng=rng) is None
    assert quality.standing.prompt
    assert quality.snapshot().finished == 5000


def test_equally_good_predictors_keep_the_stated_bound(answers: Answers, good: list[EndedRequest]) -> None:
    sizes = np.abs(advantages(answers, good))
    assert alarms_at_equality(sizes, runs=200, requests=5000, seed=1) <= 200 * 5000 / 1e6 + 3


def test_rolling_errors_are_those_of_every_decode_step(answers: Answers, good: list[EndedRequest]) -> None:
    """Eight samples a request, each for the decode steps nearest to it, give the error over all steps."""
    from trail.predict.refine import Refiner
    from trail.predict.training.evaluation import Sequences, follow

    sequences = Sequences(
        answers.outputs, answers.ages, answers.offsets, answers.lengths, np.ones_like(answers.lengths)
    )
    refiner = Refiner(answers.bins, answers.manifest.decoding)
    tokens = refiner.tokens(follow(sequences, answers.outputs, refiner))
    remaining = sequences.remaining
    ended = sequences.per_row(answers.ended) & (answers.ages > 0)
    expected = np.abs(np.minimum(tokens, answers.limit - answers.ages) - remaining)[ended].mean()
    quality = Quality(answers.manifest, fit_from=10_000)
    quality.take(good)
    assert quality.snapshot().last.errors.probe == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("predictions", [1, 8, 9, 16, 17, 640])
def test_strides_keep_half_of_the_samples_or_more(predictions: int) -> None:
    kept = len(range(0, predictions, sample_stride(predictions)))
    assert min(predictions, SAMPLES // 2) <= kept <= SAMPLES


def test_a_stretched_life_keeps_its_beliefs(good: list[EndedRequest]) -> None:
    longer = stretched(good[0], 2.0)
    assert longer.length == 2 * good[0].length
    assert longer.posteriors is good[0].posteriors
    assert np.array_equal(longer.ages, np.minimum(2 * good[0].ages, longer.length - 1))


def test_the_command_says_what_it_found(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.save(command.answers_file(tmp_path, 150, 77))
    monkeypatch.setattr(command, "LONG_RUN", 600)
    code = command.main(
        ["--out", str(tmp_path), "--answers", "150", "--seed", "77", "--runs", "1", "--good-runs", "1",
         "--equal-runs", "5", "--shifted-requests", "1000"]
    )  # fmt: skip
    written = json.loads((tmp_path / "drift.json").read_text())
    assert code == (0 if all(written["reached"].values()) else 1)
    assert written["reached"]["detected"]
    assert written["reached"]["left_alone"]
    assert [shift["factor"] for shift in written["shifts"]] == [1.0, 0.6, 1.5, 2.0, 3.0]
    for shift in written["shifts"][2:]:
        assert shift["corrected"] < shift["as_trained"]
    assert "classes permuted" in capsys.readouterr().out


def test_the_seed_that_the_predictor_was_trained_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command.main(["--out", str(tmp_path), "--seed", "1"])


def test_a_fault_changes_the_outputs_it_gets(answers: Answers) -> None:
    rng = np.random.default_rng(0)
    for fault in FAULTS:
        spoilt = fault.spoil(answers.outputs, rng)
        assert spoilt.shape == answers.outputs.shape
        assert spoilt.sum(axis=1) == pytest.approx(np.ones(len(spoilt)), abs=1e-4)
        assert not np.array_equal(spoilt, answers.outputs)
