"""Recorded answers as finished requests, with a probe that is as it was trained, or spoilt."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.drift.answers import Answers
from trail.predict.quality import EndedRequest
from trail.predict.refine import Refiner
from trail.predict.training.evaluation import Sequences, follow
from trail.sidecar.requests.predictions import SAMPLES

Outputs = npt.NDArray[np.float32]
Spoil = Callable[[Outputs, np.random.Generator], Outputs]


@dataclass(frozen=True)
class Fault:
    """Something that can happen to a probe's outputs, [N, k] of all answers."""

    name: str
    spoil: Spoil


def _classes(outputs: Outputs, rng: np.random.Generator) -> Outputs:
    return outputs[:, rng.permutation(outputs.shape[1])]


def _reversed(outputs: Outputs, _rng: np.random.Generator) -> Outputs:
    return outputs[:, ::-1]


def _rows(outputs: Outputs, rng: np.random.Generator) -> Outputs:
    return outputs[rng.permutation(len(outputs))]


def _flat(outputs: Outputs, _rng: np.random.Generator) -> Outputs:
    return np.full_like(outputs, 1.0 / outputs.shape[1])


FAULTS = (
    Fault("classes permuted", _classes),
    Fault("classes reversed", _reversed),
    Fault("rows permuted", _rows),
    Fault("says nothing", _flat),
)


def lives(answers: Answers, outputs: Outputs) -> list[EndedRequest]:
    """The answers as finished requests, refined and sampled as the sidecar does it from `outputs` [N, k]."""
    sequences = Sequences(
        vectors=outputs,
        ages=answers.ages,
        offsets=answers.offsets,
        lengths=answers.lengths,
        prompt_tokens=np.ones_like(answers.lengths),
    )
    posteriors = follow(sequences, outputs, Refiner(answers.bins, answers.manifest.decoding))
    made = []
    for i, (first, end) in enumerate(zip(answers.offsets[:-1], answers.offsets[1:], strict=True)):
        rows = slice(int(first), int(end), sample_stride(int(end - first)))
        made.append(
            EndedRequest(
                length=int(answers.lengths[i]),
                ended=bool(answers.ended[i]),
                limit=answers.limit,
                prompt_said=float(answers.prompt_said[i]),
                ages=answers.ages[rows],
                posteriors=posteriors[rows],
            )
        )
    return made


def sample_stride(predictions: int) -> int:
    """The stride at which `sidecar.requests.predictions` holds a request of so many predictions."""
    stride = 1
    while -(-predictions // stride) > SAMPLES:
        stride *= 2
    return stride


def stretched(life: EndedRequest, factor: float) -> EndedRequest:
    """The same beliefs of an answer that is `factor` times as long."""
    length = max(round(life.length * factor), 1)
    ages = np.minimum(np.floor(life.ages * factor).astype(np.int64), length - 1)
    return replace(life, length=length, ages=ages, limit=0)
