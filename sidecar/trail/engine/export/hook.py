"""Gathers a step's hidden states and passes them to the frame ring."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from trail.engine.export.batch import batch_of
from trail.engine.export.tracker import Plan, Tracker
from trail.engine.export.transfer import Transfer
from trail.engine.report.stats import StatsFile, Timing

HiddenStates = Callable[[], Sequence[torch.Tensor]]
"""The exported layers' hidden states of the step just run: one [tokens, hidden] a layer, in their order."""


class ExportError(RuntimeError):
    """A step's hidden states are not what was agreed at start-up."""


class Exporter:
    """One engine's export: called by the worker after each step, on the model's stream.

    `hidden_states` gives the tensors of the step just run. Beside the stages of `transfer`, memory holds one
    float32 vector a layer for each request in the middle of its prompt.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int],
        tracker: Tracker,
        transfer: Transfer,
        hidden_states: HiddenStates,
        timing: Timing | None = None,
        counters: dict[str, int] | None = None,
        stats: StatsFile | None = None,
    ) -> None:
        self._layers = tuple(layers)
        self._tracker = tracker
        self._transfer = transfer
        self._hidden_states = hidden_states
        self._timing = timing if timing is not None else Timing()
        self._counters = counters if counters is not None else {}
        self._counters |= {"rows": 0, "dropped_steps": 0}
        self._stats = stats
        self._step = 0
        self._tokens_ns = 0

    def step(self, scheduler_output: Any, runner: Any) -> None:
        """Export what `runner` has just computed for `scheduler_output`.

        Prompts always; newest tokens no more often than the sidecar reads, which uses the newest of them.
        """
        began_ns = time.monotonic_ns()
        self._step += 1
        self._follow(scheduler_output)
        if not self._transfer.ready(began_ns):
            return
        tokens = began_ns - self._tokens_ns >= self._transfer.interval_ns
        if tokens or self._tracker.open_prompts:
            batch = batch_of(runner)
            if batch is None:
                return
            plan = self._tracker.plan(batch, tokens)
            if tokens:
                self._tokens_ns = began_ns
            if plan is not None:
                self._export(plan)
            self._counters["dropped_steps"] = self._transfer.dropped
        now_ns = time.monotonic_ns()
        self._timing.add(now_ns - began_ns)
        if self._stats is not None:
            self._stats.maybe_write(now_ns)

    def close(self) -> None:
        """Let go of the ring; writes the last statistics."""
        self._transfer.close()
        if self._stats is not None:
            self._stats.write()

    def _follow(self, scheduler_output: Any) -> None:
        self._tracker.forget(scheduler_output.finished_req_ids)
        for new in scheduler_output.scheduled_new_reqs:
            tokens = new.prompt_token_ids if new.prompt_token_ids is not None else new.prompt_embeds
            if tokens is not None:
                self._tracker.admit(new.req_id, len(tokens))

    def _export(self, plan: Plan) -> None:
        hidden = self._hidden_states()
        if len(hidden) != len(self._layers):
            raise ExportError(f"the model returned {len(hidden)} layers where {self._layers} were asked for")
        for span in plan.spans:
            parts = [h[span.start : span.stop].sum(0, dtype=torch.float32) for h in hidden]
            sums = span.request.sums
            span.request.sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
        m = len(plan.rows)
        if m == 0:
            return
        stage = self._transfer.stage()
        if stage is not None:
            index = stage.load_index(plan.token_index)
            gathered = len(plan.token_index)
            for at, h in enumerate(hidden):
                out = stage.vectors[at * m : (at + 1) * m]
                torch.index_select(h, 0, index, out=out[:gathered])
                for row, request in enumerate(plan.pooled, start=gathered):
                    if request.sums is not None:
                        out[row] = request.sums[at] / request.prompt_tokens
            self._transfer.send(stage, self._step, _per_layer(plan, self._layers))
            self._counters["rows"] += m
        for request in plan.pooled:
            request.sums = None


def _per_layer(plan: Plan, layers: Sequence[int]) -> Any:
    """The plan's rows once a layer: ROW_DTYPE [layers * m], layer by layer."""
    rows = plan.rows
    if len(layers) == 1:
        rows["layer"] = layers[0]
        return rows
    repeated = rows[None].repeat(len(layers), axis=0)
    repeated["layer"] = [[layer] for layer in layers]
    return repeated.reshape(-1)
