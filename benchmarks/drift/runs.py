"""Traffic of finished requests drawn from recorded answers, and what `predict.quality` makes of it."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.drift.answers import Answers
from trail.predict.drift import ALARM, STAKES, advantage
from trail.predict.quality import EndedRequest, Quality

Floats = npt.NDArray[np.float64]

BATCH = 8
"""Requests judged at a look; the sidecar's thread takes whatever ended since its last one."""


def draws(
    lives: Sequence[EndedRequest], requests: int, rng: np.random.Generator
) -> Iterator[list[EndedRequest]]:
    """`requests` requests drawn from `lives` with replacement, BATCH at a time."""
    for first in range(0, requests, BATCH):
        yield [lives[i] for i in rng.integers(0, len(lives), min(BATCH, requests - first))]


def requests_until(
    quality: Quality, lives: Sequence[EndedRequest], *, trusted: bool, most: int, rng: np.random.Generator
) -> int | None:
    """How many requests pass until the probe's verdict is `trusted`; None where `most` do not do."""
    for number, batch in enumerate(draws(lives, most, rng)):
        quality.take(batch)
        if quality.standing.probe is trusted:
            return number * BATCH + len(batch)
    return None


def errors(
    answers: Answers,
    lives: Sequence[EndedRequest],
    *,
    corrects: bool,
    requests: int,
    seed: int,
    window: int = 500,
) -> tuple[float, float]:
    """The probe's mean absolute error in tokens over `requests` requests, and coverage of 80 % intervals.

    A request is judged under the correction fitted to those before it, or, unless `corrects`, under none.
    """
    quality = Quality(answers.manifest, window=window, fit_from=100 if corrects else requests + 1)
    rng, found = np.random.default_rng(seed), []
    for _ in range(requests // window):
        for batch in draws(lives, window, rng):
            quality.take(batch)
        last = quality.snapshot().last
        found.append((last.errors.probe, last.coverage80))
    mae, coverage = np.mean(found, axis=0)
    return float(mae), float(coverage)


def advantages(answers: Answers, lives: Sequence[EndedRequest]) -> Floats:
    """The probe's advantage over the prompt predictor in each request, float64 [n]."""
    means = [judged.means() for judged in Quality(answers.manifest).judge(lives)]
    return advantage([mean.probe for mean in means], [mean.prompt for mean in means])


def alarms_at_equality(sizes: Floats, *, runs: int, requests: int, seed: int) -> int:
    """In how many of `runs` of `requests` requests two predictors that are equally good raise an alarm.

    Advantages are drawn from `sizes`, each with its sign tossed: neither predictor is better.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros((runs, len(STAKES)))
    peak = np.zeros(runs)
    stakes = np.asarray(STAKES)
    for _ in range(requests):
        x = rng.choice(sizes, runs) * rng.choice((-1.0, 1.0), runs)
        held = np.maximum(held, 1.0) * (1.0 - stakes * x[:, None])
        peak = np.maximum(peak, held.mean(axis=1))
    return int((peak >= ALARM).sum())
