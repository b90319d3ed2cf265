"""Which hidden states of a step are exported: bookkeeping over requests, without tensors.

`position` counts the tokens computed up to and including the exported one. A TOKEN row is due when the
newest token of a request lies `export_every` or more past its prompt and past the row before; a PROMPT row
when a step ends with the last prompt token. Recomputation after a preemption runs positions again: what has
been summed or exported once is not summed or exported again. A request gives at most one row a step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trail.engine.export.batch import Batch
from trail.wire.frames import ROW_DTYPE, Kind
from trail.wire.keys import request_key

UNKNOWN_PROMPT = np.iinfo(np.int64).max
"""Prompt length of a request that was never announced: no row is ever due for it."""
_NONE = np.zeros(0, np.intp)


@dataclass(slots=True)
class TrackedRequest:
    """What the export remembers of one request.

    `summed`: prompt tokens 0..summed-1 are in `sums`; `sums`: running sum per layer, owned by the exporter.
    `newest`: position of the newest TOKEN row.
    """

    key: int
    prompt_tokens: int
    summed: int = 0
    sums: list[Any] | None = None
    prompt_done: bool = False
    newest: int = 0


@dataclass(frozen=True)
class Span:
    """Hidden-state rows `start`..`stop`-1 are prompt tokens to be added to the request's running sum."""

    request: TrackedRequest
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """What one step exports.

    `rows`: ROW_DTYPE [m]. `token_index`: int64 [m - len(pooled)], the hidden state behind each of the first
    rows; the last rows are the prompt means of `pooled`, in that order. `spans` are to be summed first.
    """

    rows: npt.NDArray[np.void]
    token_index: npt.NDArray[np.int64]
    spans: list[Span] = field(default_factory=list)
    pooled: list[TrackedRequest] = field(default_factory=list)


@dataclass
class _Prompts:
    """The step's prompts: what is to be summed, whose mean is complete, whose last token stands in for it."""

    spans: list[Span] = field(default_factory=list)
    pooled: list[TrackedRequest] = field(default_factory=list)
    last: list[TrackedRequest] = field(default_factory=list)
    last_index: list[int] = field(default_factory=list)

    def add(self, request: TrackedRequest, start: int, computed: int, end: int) -> None:
        """Tokens `computed`..`end`-1 of `request` are the hidden states from row `start` on."""
        stop = min(end, request.prompt_tokens)
        # A gap (computed > summed) comes from a prefix-cache hit: the mean is not to be had, unless a later
        # recomputation starts from the gap or before it.
        if computed <= request.summed < stop:
            self.spans.append(Span(request, start + request.summed - computed, start + stop - computed))
            request.summed = stop
        if end != request.prompt_tokens:
            return
        request.prompt_done = True
        if request.summed == request.prompt_tokens:
            self.pooled.append(request)
        else:
            self.last.append(request)
            self.last_index.append(start + stop - 1 - computed)


class Tracker:
    """Follows requests through the steps of one engine and says what each step exports.

    `open_prompts` counts the requests whose PROMPT row has not been exported.
    """

    def __init__(self, export_every: int = 1) -> None:
        self._every = export_every
        self._requests: dict[str, TrackedRequest] = {}
        self.open_prompts = 0
        # The batch is mostly the same from step to step: per-request values are kept as arrays in batch order
        # and rebuilt when the order changes.
        self._ids: list[str] = []
        self._members: list[TrackedRequest | None] = []
        self._keys = np.zeros(0, np.uint64)
        self._prompt = np.zeros(0, np.int64)
        self._newest = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._requests)

    def admit(self, request_id: str, prompt_tokens: int) -> None:
        """A request is scheduled for the first time, or again (the V2 runner announces resumed requests)."""
        known = self._requests.get(request_id)
        if known is not None and known.prompt_tokens == prompt_tokens:
            return
        self._drop(request_id)
        self._requests[request_id] = TrackedRequest(request_key(request_id), prompt_tokens)
        self.open_prompts += 1
        self._ids = []  # the arrays may hold an earlier request of this name

    def forget(self, request_ids: Iterable[str]) -> None:
        """Requests ended."""
        for request_id in request_ids:
            self._drop(request_id)

    def plan(self, batch: Batch, tokens: bool = True) -> Plan | None:
        """What this step exports; None when nothing. Marks it as exported. No TOKEN rows unless `tokens`."""
        if batch.req_ids != self._ids:
            self._rebuild(batch.req_ids)
        in_prompt = np.flatnonzero(batch.computed < self._prompt)
        if not tokens and not len(in_prompt):
            return None
        ends = batch.computed + (batch.starts[1:] - batch.starts[:-1])
        if tokens:
            token = self._due(ends)
            self._newest[token] = ends[token]
        else:
            token = _NONE

        index = (batch.starts[1:] - 1)[token].astype(np.int64)
        prompts = _Prompts()
        for i in in_prompt:
            request = self._members[i]
            if request is not None and not request.prompt_done:
                prompts.add(request, int(batch.starts[i]), int(batch.computed[i]), int(ends[i]))
        ended = len(prompts.last) + len(prompts.pooled)
        self.open_prompts -= ended

        total = len(token) + ended
        if total == 0 and not prompts.spans:
            return None
        rows = np.zeros(total, ROW_DTYPE)
        rows["key"][: len(token)] = self._keys[token]
        rows["position"][: len(token)] = ends[token]
        rows["pooled"][: len(token)] = 1
        rows["kind"][: len(token)] = Kind.TOKEN
        finished = [(r, 1) for r in prompts.last] + [(r, r.prompt_tokens) for r in prompts.pooled]
        for row, (request, count) in enumerate(finished, start=len(token)):
            rows[row] = (request.key, request.prompt_tokens, count, 0, Kind.PROMPT, 0)
        if prompts.last:
            index = np.concatenate([index, np.array(prompts.last_index, np.int64)])
        return Plan(rows, index, prompts.spans, prompts.pooled)

    def _drop(self, request_id: str) -> None:
        request = self._requests.pop(request_id, None)
        if request is not None and not request.prompt_done:
            self.open_prompts -= 1

    def _due(self, ends: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
        """Which of the batch's requests, computed up to `ends`, have a newest token to export."""
        return np.flatnonzero(ends - np.maximum(self._newest, self._prompt) >= self._every)

    def _rebuild(self, req_ids: Sequence[str]) -> None:
        for i, request in enumerate(self._members):
            if request is not None:
                request.newest = max(request.newest, int(self._newest[i]))
        self._ids = list(req_ids)  # the runner reorders its list in place
        self._members = [self._requests.get(request_id) for request_id in req_ids]
        self._keys = np.array([m.key if m else 0 for m in self._members], np.uint64)
        self._prompt = np.array([m.prompt_tokens if m else UNKNOWN_PROMPT for m in self._members], np.int64)
        self._newest = np.array([m.newest if m else 0 for m in self._members], np.int64)
