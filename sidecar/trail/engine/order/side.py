"""TRAIL's part of one engine core's scheduler, behind a guard: nothing in it can fail the engine."""

import math
import time
from collections.abc import Mapping
from typing import Any

from trail.engine.log import logger
from trail.engine.order.board_watch import BoardWatch
from trail.engine.order.ordering import Ordering
from trail.engine.order.queues import Queues
from trail.engine.order.slots import Recompute, SlotTable
from trail.engine.report.stats import StatsFile, Timing, schedule_stats_path
from trail.engine.report.stream import LOAD_INTERVAL_S, LifecycleStream
from trail.engine.report.summaries import Summaries
from trail.engine.start.config import EngineConfig, engine_index
from trail.wire import names
from trail.wire.lifecycle import (
    UINT32_MAX,
    Changed,
    EngineSummary,
    Finished,
    Hello,
    Load,
    Started,
)
from trail.wire.log_lines import RateLimited

FAILURES_IN_A_ROW = 3
"""Steps that may fail in a row before TRAIL is off for good."""


class SchedulerSide:
    """What TRAIL does around vLLM's `schedule()`, `add_request`, `_preempt_request` and `_free_request`.

    Every public method catches everything: a step in which one fails is vLLM's own, and `off` is set after
    `FAILURES_IN_A_ROW` such steps.
    """

    def __init__(self, scheduler: Any, config: EngineConfig) -> None:
        """Raises whatever a scheduler without the expected attributes gives."""
        self._scheduler = scheduler
        self._table = SlotTable()
        self._recompute = Recompute()
        self._queues = Queues(scheduler)
        engine = engine_index(scheduler.vllm_config.parallel_config)
        self._watch = BoardWatch(names.board_path(config.directory, engine), config.heartbeat_ns)
        self._summaries = Summaries(self._send)
        self._ordering = Ordering(self._queues, self._table, self._watch, self._summaries)
        self._timing = Timing()
        self._totals: dict[str, int] = {}
        self._stats = (
            StatsFile(
                schedule_stats_path(config.directory, engine), {"schedule_us": self._timing}, self._totals
            )
            if config.stats
            else None
        )
        self._stream = LifecycleStream(
            names.socket_path(config.directory), _hello(scheduler, config, engine), self._write_stats
        )
        self.off = False
        self._failures = 0
        self._failed_step = False
        self._steps = 0
        self._preemptions = 0
        self._next_load_ns = 0
        self._own_ns = 0
        self._limited = RateLimited(math.inf)
        if not self._queues.stock_order:
            logger.warning(
                "TRAIL: vLLM's scheduling policy is %r; TRAIL leaves its order alone (use fcfs for TRAIL's)",
                scheduler.scheduler_config.policy,
            )
        self._stream.start()

    def before(self, throttled: bool) -> None:
        """Before vLLM's `schedule()`; `throttled`: it will start no prompt in this step."""
        began_ns = time.monotonic_ns()
        self._steps += 1
        self._failed_step = False
        try:
            if self._stream.wants_resend:
                self._ordering.remember_predictions()
                self._stream.resend(self._open_requests())
            if self._summaries.before_first:
                self._summaries.first_tokens(began_ns)
            if self._queues.stock_order:
                self._ordering.before(began_ns, throttled)
            self._summaries.kept_running = len(self._scheduler.running)
        except Exception as error:  # noqa: BLE001 - this step is vLLM's own
            self._fail("ordering", error)
        self._own_ns = time.monotonic_ns() - began_ns

    def restore(self) -> None:
        """After vLLM's `schedule()`, also when it raised."""
        began_ns = time.monotonic_ns()
        try:
            self._ordering.restore()
        except Exception as error:  # noqa: BLE001
            self._fail("restoring the queue", error)
        self._own_ns += time.monotonic_ns() - began_ns

    def after(self, output: Any) -> None:
        """After a step was scheduled: `output` is vLLM's SchedulerOutput."""
        began_ns = time.monotonic_ns()
        try:
            if self._recompute.above:
                for request_id, tokens in output.num_scheduled_tokens.items():
                    if request_id in self._recompute.above:
                        end = self._scheduler.requests[request_id].num_computed_tokens
                        self._recompute.computed(request_id, end - tokens, end)
            running = self._scheduler.running
            if len(running) > self._summaries.kept_running:
                self._summaries.scheduled(running, began_ns, self._ordering.rank_of)
            if began_ns >= self._next_load_ns or not running:
                self._next_load_ns = began_ns + int(LOAD_INTERVAL_S * 1e9)
                self._report_load()
        except Exception as error:  # noqa: BLE001
            self._fail("reporting", error)
        if not self._failed_step:
            self._failures = 0
        self._timing.add(self._own_ns + time.monotonic_ns() - began_ns)

    def added(self, request: Any) -> None:
        """A request entered vLLM's scheduler (or a further part of a streamed one)."""
        try:
            if request.request_id not in self._table.by_id:
                now_ns = time.monotonic_ns()
                arrival_s = now_ns / 1e9
                slot = self._table.add(
                    request.request_id,
                    arrival_s=arrival_s,
                    deadline_s=arrival_s + self._time_allowed_s(request),
                    priority=request.priority,
                    uncomputed=request.num_tokens,
                )
                key, fallback_steps = int(self._table.key[slot]), self._ordering.fallback_steps
                summary = self._summaries.add(request.request_id, key, slot, now_ns, fallback_steps)
                self._send(slot, _started(request, key, slot, summary=summary.so_far(fallback_steps)))
        except Exception as error:  # noqa: BLE001
            self._fail("noting a request", error)

    def preempting(self, request: Any) -> None:
        """vLLM is about to preempt a running request, for memory or for us."""
        try:
            self._preemptions += 1
            self._recompute.preempted(request.request_id, request.num_computed_tokens)
            self._ordering.preempted(request)
            self._summaries.preempted(request, time.monotonic_ns())
        except Exception as error:  # noqa: BLE001
            self._fail("noting a preemption", error)

    def freed(self, request: Any) -> None:
        """A request ended."""
        try:
            recomputed = self._recompute.forget(request.request_id)
            now_ns = time.monotonic_ns()
            summary = self._summaries.end(request, now_ns)
            slot = self._table.by_id.get(request.request_id)
            if slot is None:
                return
            key = int(self._table.key[slot])
            self._table.remove(request.request_id)
            self._ordering.forget(slot)
            self._send(
                slot,
                Finished(
                    key=key,
                    slot=slot,
                    output_tokens=request.num_output_tokens,
                    preemptions=request.num_preemptions,
                    recomputed_tokens=recomputed,
                    finish_reason=str(request.get_finished_reason()).lower(),
                    summary=summary.so_far(self._ordering.fallback_steps, now_ns) if summary else None,
                ),
            )
        except Exception as error:  # noqa: BLE001
            self._fail("noting an end", error)

    def stop(self, wait_s: float = 0.0) -> None:
        """End the background thread, waiting for it at most `wait_s`, and let go of the board."""
        try:
            self._ordering.first_come_first_served()
            self._stream.stop(wait_s)
            self._watch.close()
            self._write_stats(at_once=True)
        except Exception as error:  # noqa: BLE001
            logger.warning("TRAIL: shutting down: %s", error)

    def _send(self, slot: int, event: Started | Changed | Finished) -> None:
        """Report an event of a request that has, or could have, a row on the board."""
        capacity = self._watch.capacity
        if capacity == 0 or slot < capacity:
            self._stream.report(event)

    def _time_allowed_s(self, request: Any) -> float:
        """Seconds from its arrival to the deadline that a request states, infinite where it states none."""
        stated = _extra_args(request).get(names.XARG_DEADLINE)
        if stated is None:
            return math.inf
        allowed_s = _positive(stated)
        if allowed_s is None:
            if self._limited.admit(names.XARG_DEADLINE) is not None:
                logger.warning(
                    "TRAIL: request %s states %s=%r and is served without a deadline; give a positive number "
                    "of seconds (said once)",
                    request.request_id,
                    names.XARG_DEADLINE,
                    stated,
                )
            return math.inf
        return allowed_s

    def _open_requests(self) -> list[Started]:
        """All open requests with their ages and the predictions last seen on a board."""
        table, capacity = self._table, self._watch.capacity
        requests, fallback_steps = self._scheduler.requests, self._ordering.fallback_steps
        return [
            _started(
                request,
                int(table.key[slot]),
                slot,
                summary=summary.so_far(fallback_steps)
                if (summary := self._summaries.get(request_id))
                else None,
                age=request.num_output_tokens + request.num_output_placeholders,
                initial=float(table.initial[slot]),
            )
            for request_id, slot in table.by_id.items()
            if (capacity == 0 or slot < capacity) and (request := requests.get(request_id)) is not None
        ]

    def _report_load(self) -> None:
        scheduler, ordering = self._scheduler, self._ordering
        running, waiting = scheduler.get_request_counts()
        load = Load(
            waiting=waiting,
            running=running,
            kv_usage=self._queues.kv_usage(),
            preemptions_total=self._preemptions,
            policy_preemptions_total=ordering.policy_preemptions,
            recomputed_tokens_total=self._recompute.total,
            fallback_steps_total=ordering.fallback_steps,
            steps_total=self._steps,
            preemptions_denied_total=ordering.denied,
        )
        self._stream.set_load(load)
        if self._stats is not None:
            self._totals.update(
                {name: int(getattr(load, name)) for name in vars(load) if name.endswith("_total")}
            )

    def _write_stats(self, at_once: bool = False) -> None:
        if self._stats is not None:
            if at_once:
                self._stats.write()
            else:
                self._stats.maybe_write(time.monotonic_ns())

    def _fail(self, doing: str, error: Exception) -> None:
        """Count a failed step, log the first, and end with TRAIL off when they go on."""
        if self._failed_step and self._failures:
            return
        self._failed_step = True
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self.off = True
            logger.error(
                "TRAIL: off after %d failed steps in a row, serving first come, first served (%s: %s: %s)",
                self._failures,
                doing,
                type(error).__name__,
                error,
            )
        elif self._failures == 1:
            logger.warning("TRAIL: a step without it (%s)", doing, exc_info=error)


def _hello(scheduler: Any, config: EngineConfig, engine: int) -> Hello:
    import vllm

    vllm_config = scheduler.vllm_config
    model = vllm_config.model_config
    return Hello(
        engine=engine,
        vllm_version=vllm.__version__,
        model=str(model.model),
        hidden_size=model.get_hidden_size(),
        layers=config.layers,
        dtype=str(model.dtype).removeprefix("torch."),
        block_size_tokens=scheduler.block_size,
        kv_blocks=scheduler.kv_cache_manager.block_pool.num_gpu_blocks,
        max_running=scheduler.max_num_running_reqs,
        max_model_len=scheduler.max_model_len,
        prefix_caching=bool(scheduler.kv_cache_manager.enable_caching),
    )


def _started(
    request: Any, key: int, slot: int, *, summary: EngineSummary | None, age: int = 0, initial: float = 0.0
) -> Started:
    return Started(
        key=key,
        request_id=request.request_id,
        slot=slot,
        prompt_token_ids=request.prompt_token_ids or (),
        max_tokens=request.max_tokens,
        arrival_time_s=request.arrival_time,
        priority=request.priority,
        trace_headers=request.trace_headers or {},
        exact_output_tokens=_exact_length(_extra_args(request).get(names.XARG_OUTPUT_TOKENS)),
        age=age,
        initial_prediction=initial,
        summary=summary,
    )


def _extra_args(request: Any) -> Mapping[str, object]:
    return getattr(request.sampling_params, "extra_args", None) or {}


def _positive(value: object) -> float | None:
    """A positive number as a client may have sent it, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number > 0 else None


def _exact_length(value: object) -> int:
    """The output length a client states for the oracle, 0 when it states none that can be used."""
    try:
        length = int(value)  # type: ignore[call-overload]  # anything may come from a client
    except (TypeError, ValueError, OverflowError):
        return 0
    return length if 0 < length <= UINT32_MAX else 0
