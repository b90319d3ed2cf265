"""What every predictor compared says at every decode step of the test answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trail.predict.artefact import Artefact
from trail.predict.bins import Bins
from trail.predict.probe import Probe
from trail.predict.prompt import PromptPredictor
from trail.predict.quantiles import median, truncated
from trail.predict.refine import Decoding, Refiner
from trail.predict.training.evaluation import Sequences, follow
from trail.predict.training.metrics import Forecast, JudgedRows
from trail.predict.training.probe_training import ProbeRows, predict_rows, train_probe
from trail.predict.training.recipes import DEFAULT
from trail.training.fitting import Fitted

ARMS = (
    "constant",
    "position",
    "prompt",
    "prompt-countdown",
    "trail-paper-raw",
    "trail-paper-refined",
    "default",
)


@dataclass(frozen=True)
class Predictor:
    """A trained predictor, whether just fitted or read from disk."""

    probe: Probe | None
    decoding: Decoding
    prompt: PromptPredictor | None
    bins: Bins

    @classmethod
    def of(cls, fitted: Fitted) -> Predictor:
        prompt = fitted.prompt.predictor if fitted.prompt else None
        return cls(fitted.probe, fitted.decoding, prompt, fitted.bins)

    @classmethod
    def of_artefact(cls, read: Artefact) -> Predictor:
        return cls(read.probe, read.manifest.decoding, read.prompt, read.manifest.bins)

    @property
    def layer(self) -> int:
        """Whose vectors it reads; 0 without a probe."""
        return 0 if self.probe is None else self.probe.layer


@dataclass(frozen=True)
class HeldOutSet:
    """Answers that ended by themselves, to prompts that nothing was trained on.

    `prompts` are distinct, `prompt_index` int [n] names each answer's; `sequences` by layer, all of the same
    answers; `kind` int [prompts] of each prompt, where the data names one.
    """

    prompts: Sequence[tuple[int, ...]]
    prompt_index: npt.NDArray[np.int64]
    sequences: dict[int, Sequences]
    kind: npt.NDArray[np.int64] | None = None

    @property
    def any_layer(self) -> Sequences:
        """For what does not depend on the layer."""
        return next(iter(self.sequences.values()))

    @property
    def decode(self) -> npt.NDArray[np.bool_]:
        """The rows that are judged, bool [N]: all but the prompts' own."""
        return self.any_layer.ages > 0

    def rows(self) -> JudgedRows:
        """What the arms are judged on."""
        of, decode = self.any_layer, self.decode
        prompt = of.per_row(self.prompt_index)[decode].astype(np.int64)
        return JudgedRows(
            prompt=prompt,
            request=of.per_row(np.arange(len(of.lengths)))[decode].astype(np.int64),
            age=of.ages[decode].astype(np.int64),
            remaining=of.remaining[decode],
            kind=None if self.kind is None else self.kind[prompt],
        )


def forecasts(
    test: HeldOutSet,
    training: ProbeRows,
    validation: npt.NDArray[np.bool_],
    default: Predictor,
    paper: Predictor | None,
) -> dict[str, Forecast]:
    """One forecast an arm, at the test set's decode steps; those that read hidden states where there are any.

    `training` are the rows that `default` was trained on, with `validation` bool [n] the share its training
    was stopped by; the arms without hidden states learn from them.
    """
    found = {
        "constant": _constant(test, training, default.bins),
        "position": _position(test, training, validation, default.bins),
    }
    if default.prompt is not None:
        found["prompt"], found["prompt-countdown"] = _prompt(test, default.prompt)
    if paper is not None and paper.probe is not None:
        found["trail-paper-raw"], found["trail-paper-refined"] = probe_forecasts(
            test, paper.probe, paper.decoding
        )
    if default.probe is not None:
        found["default"] = probe_forecasts(test, default.probe, default.decoding)[1]
    return found


def probe_forecasts(test: HeldOutSet, probe: Probe, decoding: Decoding) -> tuple[Forecast, Forecast]:
    """The probe at each step alone, and followed over the request."""
    sequences = test.sequences[probe.layer]
    refiner = Refiner(probe.bins, decoding)
    p = predict_rows(probe, sequences.rows())
    raw, followed = (refiner.read(q[test.decode]) for q in (p, follow(sequences, p, refiner)))
    if decoding.filter == "pool":  # the paper's knows of no limit
        raw, followed = (_within_limit(test, read, refiner.bins) for read in (raw, followed))
    return (
        Forecast(refiner.bins, raw.astype(np.float32), refiner.point(raw)),
        Forecast(refiner.bins, followed.astype(np.float32), refiner.point(followed)),
    )


def _within_limit(test: HeldOutSet, p: npt.NDArray[np.floating], bins: Bins) -> npt.NDArray[np.float64]:
    """`p` at the decode steps, given that the answers end within their limits, as all judged ones did."""
    left = test.any_layer.left
    return np.asarray(p, dtype=np.float64) if left is None else truncated(p, bins, left[test.decode])


def _constant(test: HeldOutSet, training: ProbeRows, bins: Bins) -> Forecast:
    known = training.remaining[~_cut(training)]
    histogram = np.bincount(bins.index(known), minlength=bins.k) / len(known)
    n = int(test.decode.sum())
    p = np.tile(histogram.astype(np.float32), (n, 1))
    return Forecast(bins, p, np.full(n, float(np.median(known))))


def _position(
    test: HeldOutSet, training: ProbeRows, validation: npt.NDArray[np.bool_], bins: Bins
) -> Forecast:
    blind = dataclasses.replace(training, vectors=np.zeros((len(training), 1), dtype=np.float32))
    probe = train_probe(
        blind,
        np.zeros(len(training), dtype=np.bool_),
        bins=bins,
        layer=0,
        recipe=DEFAULT.probe,
        validation=validation,
    ).probe
    rows = test.any_layer.rows()
    rows = dataclasses.replace(rows, vectors=np.zeros((len(rows), 1), dtype=np.float32))
    p = _within_limit(test, predict_rows(probe, rows)[test.decode], bins)
    return Forecast(bins, p.astype(np.float32), median(p, bins))


def _prompt(test: HeldOutSet, prompt: PromptPredictor) -> tuple[Forecast, Forecast]:
    """The whole length's distribution as if nothing had been generated, and with what was counted off."""
    of = test.any_layer
    whole = prompt.predict(test.prompts)[test.prompt_index]
    p = of.per_row(np.arange(len(whole)))[test.decode]
    ages = of.ages[test.decode].astype(np.float64)
    predicted = median(whole, prompt.bins)[p]
    left = _within_limit(test, conditioned(whole[p], prompt.bins, ages), prompt.bins)
    return (
        Forecast(prompt.bins, whole[p], predicted),
        Forecast(prompt.bins, left.astype(np.float32), np.maximum(predicted - ages, 0.0)),
    )


def conditioned(
    whole: npt.NDArray[np.floating], bins: Bins, ages: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Distribution of what remains, float32 [n, k], of whole lengths known to exceed `ages` [n].

    Where that was thought impossible, the shortest remaining length is all that is left to believe.
    """
    edges = np.asarray(bins.edges, dtype=np.float64)
    cumulative = np.concatenate(
        [np.zeros((len(whole), 1)), np.cumsum(whole, axis=1, dtype=np.float64)], axis=1
    )
    at = ages[:, None] + edges[None, :]
    # The cumulative distribution is linear inside a bin.
    bin_of = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, bins.k - 1)
    share = np.clip((at - edges[bin_of]) / bins.widths[bin_of], 0.0, 1.0)
    rows = np.arange(len(whole))[:, None]
    below = cumulative[rows, bin_of] + share * np.diff(cumulative, axis=1)[rows, bin_of]
    mass = np.diff(below, axis=1)
    total = mass.sum(axis=1, keepdims=True)
    first = np.zeros(bins.k)
    first[0] = 1.0
    return np.where(total > 1e-9, mass / np.maximum(total, 1e-9), first).astype(np.float32)


def _cut(rows: ProbeRows) -> npt.NDArray[np.bool_]:
    return np.zeros(len(rows), dtype=np.bool_) if rows.censored is None else rows.censored
