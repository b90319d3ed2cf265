"""From exported hidden states to refined predictions of remaining length (TRAIL, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trail.predict.online import NO_CORRECTION, corrected_tokens
from trail.predict.refine import Refiner
from trail.sidecar.loop.pending import Rows
from trail.sidecar.requests.tracker import RequestTracker
from trail.wire.frames import Kind

_PROMPT = int(Kind.PROMPT)  # the ring's reader lets no kind but PROMPT and TOKEN through

PROBE_BATCH = 256
"""Rows of one probe batch; a beat between batches keeps a long one from looking like a hang."""


class ProbeLike(Protocol):
    """What is asked of a probe (`trail.predict.probe.Probe`)."""

    layer: int
    hidden_size: int

    def predict(
        self,
        vectors: npt.NDArray[np.float32],
        ages: npt.NDArray[np.int64],
        prompt_tokens: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """Probabilities float32 [n, k] for hidden states float32 [n, hidden] at `ages` [n]."""
        ...


@dataclass
class PredictionCounters:
    """Rows by what became of them."""

    predictions: int = 0
    ignored: dict[str, int] = field(default_factory=dict)

    def ignore(self, reason: str, count: int) -> None:
        """Counts `count` rows that led to no prediction."""
        if count:
            self.ignored[reason] = self.ignored.get(reason, 0) + count


class Predictor:
    """Probe and refinement over a tracker's requests."""

    def __init__(self, probe: ProbeLike, refiner: Refiner) -> None:
        self.probe = probe
        self.refiner = refiner
        self.correction = NO_CORRECTION

    def update(
        self,
        tracker: RequestTracker,
        batch: Rows,
        counters: PredictionCounters,
        beat: Callable[[], None],
        pause: Callable[[], None],
    ) -> Rows:
        """Predicts from the newest row of every request and returns the rows of unknown requests.

        The prompt's row of a request comes before its newest token's, because it is q_0 of the
        refinement. Rows of another layer, at ages a request cannot have, and not beyond the newest age
        already used (recomputation after a preemption) are ignored and counted. `beat` is called between
        batches of the probe, `pause` between pieces of work.
        """
        rows = batch.rows
        slots = tracker.slots_of(rows["key"].tolist())
        at = np.maximum(slots, 0)
        ages = rows["position"].astype(np.int64) - tracker.prompt_tokens[at]
        prompt = rows["kind"] == _PROMPT
        limit = tracker.limit[at]
        here = rows["layer"] == self.probe.layer
        known = here & (slots >= 0)
        possible = known & np.where(prompt, ages == 0, (ages >= 1) & ((limit == 0) | (ages <= limit)))
        chosen = possible & (ages > tracker.seen[at])
        usable = np.flatnonzero(chosen)
        if len(usable) < len(rows):
            counters.ignore("layer", int(np.count_nonzero(~here)))
            counters.ignore("position", int(np.count_nonzero(known & ~possible)))
            counters.ignore("recomputed", int(np.count_nonzero(possible & ~chosen)))
        newest = usable[_newest(slots[usable], prompt[usable], ages[usable])]
        counters.ignore("superseded", len(usable) - len(newest))
        if len(newest):
            pause()
            probabilities = self._probe(batch.vectors, newest, ages, tracker.prompt_tokens[at], beat)
            pause()
            finite = np.isfinite(probabilities).all(axis=1)
            counters.ignore("not_finite", int(np.count_nonzero(~finite)))
            newest, probabilities = newest[finite], probabilities[finite]
            counters.predictions += len(newest)
            prompts = prompt[newest]
            for kind in (prompts, ~prompts):
                if kind.any():
                    pause()
                    of_kind = newest[kind]
                    self._refine(tracker, slots[of_kind], ages[of_kind], probabilities[kind])
        unknown = here & (slots < 0)
        return batch.take(unknown) if unknown.any() else Rows.none(self.probe.hidden_size)

    def _probe(
        self,
        vectors: npt.NDArray[np.float32],
        chosen: npt.NDArray[np.int64],
        ages: npt.NDArray[np.int64],
        prompt_tokens: npt.NDArray[np.int64],
        beat: Callable[[], None],
    ) -> npt.NDArray[np.float32]:
        parts = []
        for first in range(0, len(chosen), PROBE_BATCH):
            if first:
                beat()
            part = chosen[first : first + PROBE_BATCH]
            parts.append(self.probe.predict(vectors[part], ages[part], prompt_tokens[part]))
        return np.concatenate(parts)

    def _refine(
        self,
        tracker: RequestTracker,
        slots: npt.NDArray[np.int64],
        ages: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float32],
    ) -> None:
        posterior = np.empty((len(slots), probabilities.shape[1]), dtype=np.float64)
        going = tracker.has_posterior[slots]
        if not going.all():
            posterior[~going] = self.refiner.start(probabilities[~going])
        if going.any():
            passed = ages[going] - tracker.seen[slots[going]]
            posterior[going] = self.refiner.step(
                tracker.posterior[slots[going]], probabilities[going], passed
            )
        remaining = corrected_tokens(self.refiner, posterior, self.correction)
        tracker.set_remaining(slots, ages, posterior, remaining)


def _newest(
    slots: npt.NDArray[np.int64], prompt: npt.NDArray[np.bool_], ages: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Indices of the row with the largest age of every (slot, kind)."""
    if not len(slots):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((ages, prompt, slots))
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = (np.diff(slots[order]) != 0) | (prompt[order][1:] != prompt[order][:-1])
    newest: npt.NDArray[np.int64] = order[last]
    return newest
