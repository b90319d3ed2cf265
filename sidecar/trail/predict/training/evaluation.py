"""How well a predictor follows requests through their decoding: the paper's comparison of predictors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.predict.probe import Probe
from trail.predict.refine import PAPER, Decoding, Refiner
from trail.predict.training.probe_training import ProbeRows, predict_rows


@dataclass(frozen=True)
class Sequences:
    """Recorded requests, one after another: request i owns rows offsets[i] to offsets[i + 1].

    `vectors` float [N, H], may be memory-mapped; `ages` int [N], within a request ascending from 0 (the
    prompt's vector); `lengths` int [n], the whole output lengths in tokens; `offsets` int [n + 1];
    `prompt_tokens` int [n]; `censored` bool [n]: the answer was cut, its true length is at least that (none
    by default); `limits` int [n], the most tokens each answer could have had, where known. Raises ValueError
    where these contradict each other.
    """

    vectors: npt.NDArray[np.floating]
    ages: npt.NDArray[np.integer]
    offsets: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.integer]
    prompt_tokens: npt.NDArray[np.integer]
    censored: npt.NDArray[np.bool_] | None = None
    limits: npt.NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        counts = np.diff(self.offsets)
        if len(counts) != len(self.lengths) or self.offsets[0] != 0 or np.any(counts < 1):
            raise ValueError("offsets must start at 0 and give every request at least one row")
        if len(self.prompt_tokens) != len(self.lengths):
            raise ValueError(f"{len(self.lengths)} requests need as many prompt_tokens")
        if self.offsets[-1] != len(self.ages) or len(self.ages) != len(self.vectors):
            raise ValueError(
                f"offsets end at {self.offsets[-1]}, there are {len(self.ages)} ages and"
                f" {len(self.vectors)} vectors"
            )
        firsts = self.offsets[:-1]
        inner = np.ones(len(self.ages), dtype=np.bool_)
        inner[firsts] = False
        if np.any(self.ages[firsts] != 0) or np.any(np.diff(self.ages.astype(np.int64))[inner[1:]] < 1):
            raise ValueError("the ages of a request must ascend from 0")
        if np.any(self.remaining < 0):
            raise ValueError("an age is beyond the whole output length of its request")

    def per_row(self, values: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
        """One value a request [n], repeated at its rows [N]."""
        return np.repeat(values, np.diff(self.offsets))

    @classmethod
    def without_vectors(
        cls,
        lengths: npt.NDArray[np.integer],
        prompt_tokens: npt.NDArray[np.integer],
        every: int = 1,
    ) -> "Sequences":
        """Every `every`-th token of answers of which only the lengths [n] are known; vectors are a 0 each."""
        counts = np.maximum((np.asarray(lengths, dtype=np.int64) - 1) // every + 1, 1)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        ages = (np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)) * every
        vectors = np.broadcast_to(np.float32(0), (len(ages), 1))
        return cls(vectors, ages, offsets, lengths, prompt_tokens)

    @property
    def left(self) -> npt.NDArray[np.int64] | None:
        """The most tokens that could still come at every row, int64 [N]; None without limits."""
        if self.limits is None:
            return None
        return np.maximum(self.per_row(self.limits).astype(np.int64) - self.ages, 0)

    def rows(self) -> ProbeRows:
        """What a probe is trained on."""
        return ProbeRows(
            self.vectors,
            self.remaining,
            ages=self.ages,
            prompt_tokens=self.per_row(self.prompt_tokens),
            censored=None if self.censored is None else self.per_row(self.censored),
        )

    @property
    def remaining(self) -> npt.NDArray[np.int64]:
        """Tokens still to come at every row, int64 [N]."""
        return self.per_row(self.lengths).astype(np.int64) - self.ages.astype(np.int64)


def evaluate_sequences(
    sequences: Sequences,
    probe: Probe | None,
    *,
    constant_tokens: float,
    decoding: Decoding = PAPER,
    prompt_tokens: npt.NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """Mean absolute errors in tokens over all decode steps (rows of age 1 and more), by predictor.

    `mae_constant_tokens`: always `constant_tokens`, the median remaining length of the training rows.
    `mae_prompt_tokens`: the prompt predictor's whole length `prompt_tokens` [n] counted down, where given.
    `mae_raw_tokens` and `mae_refined_tokens`: the probe at that row alone, and filtered over the request,
    where there is one.
    `mae_initial_*`: the same predictors on the whole length, before the first token. Also `requests` and
    `rows`.
    """
    remaining = sequences.remaining.astype(np.float64)
    predictions = {"constant": np.full(len(remaining), constant_tokens)}
    if probe is not None:
        predictions["raw"], predictions["refined"] = predict_sequences(sequences, probe, decoding)
    if prompt_tokens is not None:
        whole = sequences.per_row(np.asarray(prompt_tokens, dtype=np.float64))
        predictions["prompt"] = np.maximum(whole - sequences.ages, 0.0)
    decode = sequences.ages > 0
    initial = sequences.offsets[:-1]
    result = {"requests": float(len(sequences.lengths)), "rows": float(decode.sum())}
    for name, predicted in predictions.items():
        error = np.abs(predicted - remaining)
        if decode.any():
            result[f"mae_{name}_tokens"] = float(error[decode].mean())
        if name in ("prompt", "raw"):
            shown = "probe" if name == "raw" else name
            result[f"mae_initial_{shown}_tokens"] = float(error[initial].mean())
    return result


def predict_sequences(
    sequences: Sequences, probe: Probe, decoding: Decoding = PAPER
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Predicted remaining tokens at every row, raw and refined, float64 [N] each."""
    refiner = Refiner(probe.bins, decoding)
    p = predict_rows(probe, sequences.rows())
    return refiner.tokens(refiner.start(p)), refiner.tokens(follow(sequences, p, refiner))


def follow(sequences: Sequences, p: npt.NDArray[np.floating], refiner: Refiner) -> npt.NDArray[np.float32]:
    """The posterior at every row, float32 [N, k], from the probe's outputs `p` [N, k].

    All requests advance together, as they do in the sidecar's batches.
    """
    starts, counts = sequences.offsets[:-1], np.diff(sequences.offsets)
    posterior = np.empty(p.shape, dtype=np.float32)
    q = refiner.start(p[starts])
    posterior[starts] = q
    for t in range(1, int(counts.max(initial=0))):
        active = np.flatnonzero(counts > t)
        rows = starts[active] + t
        passed = sequences.ages[rows].astype(np.int64) - sequences.ages[rows - 1].astype(np.int64)
        q[active] = refiner.step(q[active], p[rows], passed)
        posterior[rows] = q[active]
    return posterior
