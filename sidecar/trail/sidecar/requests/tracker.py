"""The open requests of one engine core: one column a quantity, indexed by board slot."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from trail.sidecar.requests.predictions import PredictionHistories
from trail.wire.lifecycle import Started

UNSEEN = -1
"""Age of a request of which no hidden state has been seen."""


class Source:
    """Where a request's initial prediction comes from; a larger one replaces a smaller one.

    Plain numbers: to compare an array with a member of an enum takes ten times as long.
    """

    NONE = 0
    PROBE = 1
    PROMPT = 2
    ENGINE = 3  # brought by the engine after a reconnect


class RunningMean:
    """Mean of what was counted so far, in tokens; `prior` until there is something."""

    def __init__(self, prior: float = 0.0) -> None:
        self._prior = prior
        self._sum = 0.0
        self._count = 0

    def add(self, value: float, instead_of: float | None = None) -> None:
        """Counts `value`, in place of an earlier one of the same request if there was one."""
        self._sum += value - (instead_of or 0.0)
        if instead_of is None:
            self._count += 1

    @property
    def value(self) -> float:
        return self._sum / self._count if self._count else self._prior


class RequestTracker:
    """State of open requests, `[capacity]` a column; a free slot has key 0.

    `age` is the number of generated tokens at which `remaining` was predicted, `seen` the largest age of
    which a hidden state was used (UNSEEN before the first). `dirty` marks slots whose board row is to be
    written. Lengths are in tokens; `limit` is the most a request may generate, 0 where unknown.
    `prompt_said` is what the prompt predictor gave, 0 for nothing; times `prompt_stretch` it becomes the
    initial prediction, while `use_prompts` is set; `unpredicted` holds the token ids of the prompts, by key,
    that it has not been given. `history` holds what was predicted along the way, for when a request ends.
    """

    def __init__(self, capacity: int, bins: int, mean: RunningMean) -> None:
        self.capacity = capacity
        self.mean = mean
        self.mean_prompt = RunningMean()
        self.key = np.zeros(capacity, dtype=np.uint64)
        self.prompt_tokens = np.zeros(capacity, dtype=np.int64)
        self.limit = np.zeros(capacity, dtype=np.int64)
        self.exact = np.zeros(capacity, dtype=np.float64)
        self.initial = np.zeros(capacity, dtype=np.float64)
        self.source = np.zeros(capacity, dtype=np.uint8)
        self.remaining = np.zeros(capacity, dtype=np.float64)
        self.age = np.zeros(capacity, dtype=np.int64)
        self.seen = np.full(capacity, UNSEEN, dtype=np.int64)
        self.posterior = np.zeros((capacity, bins), dtype=np.float64)
        self.has_posterior = np.zeros(capacity, dtype=np.bool_)
        self.dirty = np.zeros(capacity, dtype=np.bool_)
        self.predictions = np.zeros(capacity, dtype=np.int64)
        self.prompt_said = np.zeros(capacity, dtype=np.float64)
        self.history = PredictionHistories(capacity, bins)
        self.unpredicted: dict[int, tuple[int, ...]] = {}
        self.use_prompts = True
        self.prompt_stretch = 1.0
        self._generated = 0  # by requests that are no longer open
        self._slot_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    def slots_of(self, keys: Iterable[int]) -> npt.NDArray[np.int64]:
        """Slot of every key, -1 where no open request has it."""
        return np.array([self._slot_of.get(key, -1) for key in keys], dtype=np.int64)

    def slot_of(self, key: int) -> int | None:
        """Slot of an open request, None where none has that key."""
        return self._slot_of.get(key)

    def open_slots(self) -> npt.NDArray[np.int64]:
        """Slots in use, ascending."""
        return np.flatnonzero(self.key)

    @property
    def generated_tokens(self) -> int:
        """Tokens generated under the tracker's eyes, as far as they have been seen; it never falls."""
        return self._generated + int(np.maximum(self.seen, 0).sum())

    def queued_tokens(self, waiting: int) -> float:
        """What is predicted of `waiting` requests in all, in tokens.

        Their mean is that of the open requests which have not been seen to run, or of all where there is none
        of these; a request without a prediction counts as the mean of initial predictions.
        """
        slots = self.open_slots()
        if waiting <= 0 or not len(slots):
            return 0.0
        unseen = slots[self.seen[slots] == UNSEEN]
        chosen = unseen if len(unseen) else slots
        predicted = np.where(self.source[chosen] != Source.NONE, self.remaining[chosen], self.mean.value)
        return waiting * float(predicted.mean())

    def start(self, event: Started, limit_tokens: int = 0) -> bool:
        """Opens the request of `event`; False when it was open already (the event changes nothing then).

        A request that still holds the slot is closed: the engine gave its slot away, so its end was lost.
        `limit_tokens` bounds the output where the request itself does not. Raises ValueError for a slot
        outside the board or key 0.
        """
        if not 0 <= event.slot < self.capacity:
            raise ValueError(f"slot {event.slot} lies outside the board's {self.capacity} rows")
        if event.key == 0:
            raise ValueError("request key 0 marks a free slot and names no request")
        present = self._slot_of.get(event.key)
        if present == event.slot:
            return False
        if present is not None:
            self._free(present)
        if self.key[event.slot]:
            self._free(event.slot)
        slot = event.slot
        self.key[slot] = event.key
        self.prompt_tokens[slot] = len(event.prompt_token_ids)
        self.mean_prompt.add(float(len(event.prompt_token_ids)))
        self.limit[slot] = event.max_tokens or limit_tokens
        self.exact[slot] = event.exact_output_tokens
        # The vector of the newest token comes with the step that feeds it in.
        self.seen[slot] = event.age - 1 if event.age > 0 else UNSEEN
        self._generated -= max(event.age - 1, 0)  # before its start
        self._slot_of[event.key] = slot
        self.history.begin(slot)
        self.dirty[slot] = True
        if event.initial_prediction > 0:
            self._set_initial(slot, event.initial_prediction, Source.ENGINE)
        else:
            self.unpredicted[event.key] = tuple(event.prompt_token_ids)
        return True

    def finish(self, key: int, output_tokens: int) -> None:
        """Closes an open request that ended after `output_tokens`. Raises KeyError for another."""
        slot = self._slot_of[key]
        self._generated += max(output_tokens - max(int(self.seen[slot]), 0), 0)
        self._free(slot)

    def clear(self) -> None:
        """Closes every request.

        Their board rows stay until a slot is used again: an engine that comes back reads from them the
        initial predictions that it sends along.
        """
        for slot in list(self._slot_of.values()):
            self._free(slot)
            self.dirty[slot] = False

    def set_prompt_prediction(self, key: int, tokens: float) -> bool:
        """Takes the prompt predictor's total length for the request `key`; False when it comes to nothing.

        It replaces what the probe made of the first hidden state, never what the engine brought.
        """
        slot = self._slot_of.get(key)
        if slot is None or not np.isfinite(tokens):
            return False
        self.prompt_said[slot] = tokens
        if self.source[slot] >= Source.PROMPT or not self.use_prompts:
            return False
        self._set_initial(slot, tokens * self.prompt_stretch, Source.PROMPT)
        return True

    def set_remaining(
        self,
        slots: npt.NDArray[np.int64],
        ages: npt.NDArray[np.int64],
        posterior: npt.NDArray[np.float64],
        remaining: npt.NDArray[np.float64],
    ) -> None:
        """Takes new predictions, one a slot: the posterior [n, bins] and remaining tokens [n] at `ages`."""
        remaining = np.minimum(remaining, self.ceiling(slots, ages))
        self.posterior[slots] = posterior
        self.has_posterior[slots] = True
        self.remaining[slots] = remaining
        self.age[slots] = ages
        self.seen[slots] = ages
        self.dirty[slots] = True
        made = self.predictions[slots]
        self.predictions[slots] = made + 1
        self.history.take(slots, made, ages, remaining + ages, posterior)
        for slot in slots[self.source[slots] == Source.NONE]:
            self._set_initial(int(slot), float(self.remaining[slot] + self.age[slot]), Source.PROBE)

    def ceiling(self, slots: npt.NDArray[np.int64], ages: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The most that requests [n] may still generate at `ages` [n], in tokens; infinite where unknown."""
        limit = self.limit[slots]
        most: npt.NDArray[np.float64] = np.where(limit > 0, np.maximum(limit - ages, 0), np.inf)
        return most

    def _set_initial(self, slot: int, tokens: float, source: int) -> None:
        limit = int(self.limit[slot])
        value = min(tokens, limit) if limit > 0 else tokens
        before = float(self.initial[slot]) if self.source[slot] else None
        self.mean.add(value, instead_of=before)
        self.initial[slot] = value
        self.source[slot] = source
        if not self.has_posterior[slot]:
            self.remaining[slot] = value
        self.dirty[slot] = True

    def _free(self, slot: int) -> None:
        key = int(self.key[slot])
        del self._slot_of[key]
        self.unpredicted.pop(key, None)
        for column in (self.key, self.prompt_tokens, self.limit, self.exact, self.initial, self.source,
                       self.remaining, self.age, self.has_posterior, self.predictions,
                       self.prompt_said):  # fmt: skip
            column[slot] = 0
        self._generated += max(int(self.seen[slot]), 0)
        self.seen[slot] = UNSEEN
        self.dirty[slot] = True
