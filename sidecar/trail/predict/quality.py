"""Are the predictions still right? Judges them by requests that ended, corrects them, and says whom to trust.

Every request that ended by itself is compared with what was predicted along its way. Two judges
(`predict.drift`) watch the errors: one the probe against no probe, which is the prompt's prediction counted
down, or the constant where there is none to trust; one the prompt's prediction against the constant, which is
the median length of the last requests counted down. They go on judging what is switched off.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from trail.predict.drift import Judge, advantage
from trail.predict.manifest import Manifest
from trail.predict.online import (
    NO_CORRECTION,
    Belief,
    Correction,
    corrected,
    fit_correction,
    fit_prompt_stretch,
)
from trail.predict.refine import Refiner
from trail.predict.rolling import Errors, Figures, Judged, figures

Floats = npt.NDArray[np.float64]

WINDOW = 500
"""Finished requests that figures, correction and constant are taken from."""
FIT_FROM = 100
"""Requests before the first correction, and between two."""
_FIT_ROWS = 1000
_CONSTANT_FROM = 20


@dataclass(frozen=True)
class EndedRequest:
    """A finished request and samples of what was believed along it, in order of age.

    `length` tokens were generated; without `ended` the answer was cut there. `limit` is the most it could
    have had, 0 where unknown; `prompt_said` what the prompt predictor gave for the whole length, 0 for
    nothing. `ages` int [s] generated tokens, at most `length`; `posteriors` float [s, k], s at least 1.
    """

    length: int
    ended: bool
    limit: int
    prompt_said: float
    ages: npt.NDArray[np.int64]
    posteriors: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Standing:
    """Whom to trust."""

    probe: bool = True
    prompt: bool = True


TRUSTED = Standing()


@dataclass(frozen=True)
class QualitySnapshot:
    """How the predictions do.

    `finished` requests were looked at, of which `cut` ended at a limit and say nothing about errors. The
    evidences are for the next switch of probe and prompt predictor, 0 none to 1 enough (in logarithms);
    `switches` counts verdicts changed. `correction` is the one fitted last.
    """

    finished: int = 0
    cut: int = 0
    standing: Standing = TRUSTED
    probe_evidence: float = 0.0
    prompt_evidence: float = 0.0
    switches: int = 0
    correction: Correction = NO_CORRECTION
    last: Figures = field(default_factory=Figures)
    artefact: Errors = field(default_factory=Errors)


@dataclass(frozen=True)
class Verdict:
    """A change of whom to trust: `subject` is "probe" or "prompt"; the errors are the last requests'."""

    subject: str
    trusted: bool
    finished: int
    errors: Errors


class Quality:
    """Judges finished requests; no clock, no thread, no randomness.

    `pause` is called between pieces of work.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        window: int = WINDOW,
        fit_from: int = FIT_FROM,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self.refiner = Refiner(manifest.bins, manifest.decoding)
        self.correction = NO_CORRECTION
        self._artefact = Errors.of_artefact(manifest.metrics)
        self._usual = manifest.mean_output_tokens
        self._fit_from = fit_from
        self._pause = pause
        self._requests: deque[EndedRequest] = deque(maxlen=window)
        self._judged: deque[Judged] = deque(maxlen=window)
        self._probe, self._prompt = Judge(), Judge()
        self._finished = self._cut = self._unfitted = 0

    @property
    def standing(self) -> Standing:
        """Whom to trust at present."""
        return Standing(self._probe.trusted, self._prompt.trusted)

    def take(self, requests: Sequence[EndedRequest]) -> list[Verdict]:
        """Takes finished requests, oldest first, and returns which verdicts changed."""
        if not requests:
            return []
        verdicts: list[Verdict] = []
        for request, judged in zip(requests, self.judge(requests), strict=True):
            self._finished += 1
            self._requests.append(request)
            if request.ended:
                self._judged.append(judged)
                verdicts += self._weigh(judged.means())
            else:
                self._cut += 1
        self._unfitted += len(requests)
        if self._unfitted >= self._fit_from and len(self._requests) >= self._fit_from:
            self._unfitted = 0
            self.correction = self._fit()
        return verdicts

    def judge(self, requests: Sequence[EndedRequest]) -> list[Judged]:
        """Each request's errors under the present correction, which was fitted to earlier ones."""
        counts = [len(request.ages) for request in requests]
        posteriors = np.concatenate([request.posteriors for request in requests]).astype(np.float64)
        age = np.concatenate([request.ages for request in requests])
        each = np.repeat(
            np.array([(one.length, one.limit or np.inf, one.prompt_said) for one in requests]),
            counts,
            axis=0,
        )
        length, limit, said = each.T
        said = said * self.correction.prompt_stretch
        remaining = length - age
        belief = corrected(self.refiner, posteriors, self.correction)
        stretch = self.correction.stretch
        probe = np.minimum(stretch * self.refiner.point(belief), limit - age)
        prompt = np.where(said > 0, np.maximum(np.minimum(said, limit) - age, 0.0), np.nan)
        constant = np.maximum(np.minimum(self._constant(), limit) - age, 0.0)
        errors = np.abs(np.stack([probe, prompt, constant]) - remaining)
        level = Belief(belief, self.refiner.bins).cdf((remaining + 0.5) / stretch)
        ends = np.cumsum(counts)
        return [
            Judged(request.length, request.ages, errors[:, end - count : end], level[end - count : end])
            for request, end, count in zip(requests, ends, counts, strict=True)
        ]

    def snapshot(self) -> QualitySnapshot:
        """Everything there is to say at present."""
        return QualitySnapshot(
            finished=self._finished,
            cut=self._cut,
            standing=self.standing,
            probe_evidence=self._probe.evidence,
            prompt_evidence=self._prompt.evidence,
            switches=self._probe.switches + self._prompt.switches,
            correction=self.correction,
            last=figures(self._judged),
            artefact=self._artefact,
        )

    def _weigh(self, errors: Errors) -> list[Verdict]:
        changed: list[Verdict] = []
        said = np.isfinite(errors.prompt)
        other = errors.prompt if said and self._prompt.trusted else errors.constant
        if self._probe.add(float(advantage(errors.probe, other))):
            changed.append(self._verdict("probe", self._probe))
        if said and self._prompt.add(float(advantage(errors.prompt, errors.constant))):
            changed.append(self._verdict("prompt", self._prompt))
        return changed

    def _verdict(self, subject: str, judge: Judge) -> Verdict:
        return Verdict(subject, judge.trusted, self._finished, figures(self._judged).errors)

    def _constant(self) -> float:
        """The whole length that is told of every request where nothing is predicted."""
        if len(self._judged) < _CONSTANT_FROM:
            return self._usual
        return float(np.median([judged.length for judged in self._judged]))

    def _fit(self) -> Correction:
        requests = list(self._requests)
        counts = np.array([len(request.ages) for request in requests])
        posteriors = np.concatenate([request.posteriors for request in requests]).astype(np.float64)
        ages = np.concatenate([request.ages for request in requests])
        length = np.repeat([request.length for request in requests], counts)
        ended = np.repeat([request.ended for request in requests], counts)
        stride = -(-len(ages) // _FIT_ROWS)
        rows = slice(None, None, stride)
        of_probe = fit_correction(
            self.refiner.read(posteriors[rows]),
            self.refiner.bins,
            (length - ages)[rows],
            ended[rows],
            np.repeat(1.0 / counts, counts)[rows] * stride,
            pause=self._pause,
        )
        spoken = [request for request in requests if request.ended and request.prompt_said > 0]
        said = np.array([request.prompt_said for request in spoken])
        whole = np.array([request.length for request in spoken], dtype=np.int64)
        return replace(of_probe, prompt_stretch=fit_prompt_stretch(said, whole))
