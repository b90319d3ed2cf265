"""vLLM's scheduler as the order sees it: its queues, slots and memory, for vLLM 0.26 to 0.33.

What differs between these versions is looked up once, when the scheduler is made.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm.v1.request import RequestStatus

from trail.policy.step import Room, scarce_tokens

# An enumeration's own lookups cost too much for thousands of requests in every step.
_WAITING, _PREEMPTED, _RUNNING = RequestStatus.WAITING, RequestStatus.PREEMPTED, RequestStatus.RUNNING


class Queues:
    """Queues, slots and KV cache of one vLLM scheduler (vllm/v1/core/sched/scheduler.py)."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._pool = scheduler.kv_cache_manager.block_pool
        # Up to 0.31 there is one limit; from 0.32 on admission has its own.
        self._limit_name = (
            "max_num_active_reqs" if hasattr(scheduler, "max_num_active_reqs") else "max_num_running_reqs"
        )
        self._limit: int = getattr(scheduler, self._limit_name)
        self._lowered = False
        self._has_skipped = hasattr(scheduler, "skipped_waiting")
        self._has_block_check = hasattr(scheduler, "_request_blocks_can_be_freed")
        # Every KV cache group takes blocks of its own for the same tokens.
        groups = max(len(scheduler.kv_cache_config.kv_cache_groups), 1)
        self._block_tokens: int = scheduler.block_size
        self._tokens_a_block = float(self._block_tokens / groups)
        # One block is vLLM's null block.
        self.capacity_tokens = (self._pool.num_gpu_blocks - 1) * self._tokens_a_block
        self._max_loras: int | None = scheduler.lora_config.max_loras if scheduler.lora_config else None
        self.stock_order = scheduler.scheduler_config.policy == "fcfs"

    @property
    def running(self) -> list[Any]:
        """Running requests, vLLM's own list."""
        running: list[Any] = self._scheduler.running
        return running

    @property
    def waiting(self) -> Any:
        """Waiting requests, vLLM's own RequestQueue."""
        return self._scheduler.waiting

    def gather_skipped(self) -> None:
        """Up to 0.31: requests skipped in an earlier step wait in a queue of their own, which goes first.

        Those that can start rejoin the others, else a preempted one would overtake shorter ones.
        """
        if not self._has_skipped or not self._scheduler.skipped_waiting:
            return
        skipped = self._scheduler.skipped_waiting
        back = [request for request in skipped if request.status in (_WAITING, _PREEMPTED)]
        if back:
            skipped.remove_requests(back)
            for request in back:
                self._scheduler.waiting.add_request(request)

    def put_first(self, places: list[int]) -> None:
        """Put the waiting requests at `places` before all others, in that order; the others stay as they are.

        A queue that is first come, first served is a deque. It is turned, not gone through: requests that
        stay are not touched, which is what costs in a queue of thousands.
        """
        waiting = self._scheduler.waiting
        taken: dict[int, Any] = {}
        begin = 0
        for place in sorted(places):
            waiting.rotate(begin - place)
            taken[place] = waiting.popleft()
            begin = place + 1
        waiting.rotate(begin - len(places))
        waiting.extendleft(taken[place] for place in reversed(places))

    def preempt(self, request: Any, timestamp: float) -> None:
        """Take a running request's slot and memory. It is in no queue afterwards: the caller holds it."""
        scheduler = self._scheduler
        index = scheduler.running.index(request)
        del scheduler.running[index]
        try:
            scheduler._preempt_request(request, timestamp)
        except BaseException:
            if request.status is _RUNNING:
                scheduler.running.insert(index, request)
            raise
        scheduler.waiting.remove_request(request)

    def ready(self, requests: list[Any]) -> NDArray[np.bool_]:
        """Which waiting requests `[n]` vLLM could start at once: not blocked, no output of it in flight."""
        return np.array(
            [
                (status := r.status) is _WAITING
                or (status is _PREEMPTED and not getattr(r, "num_stale_output_tokens", 0))
                for r in requests
            ],
            np.bool_,
        )

    def yields(self, requests: list[Any]) -> NDArray[np.bool_]:
        """Which running requests `[n]` can be preempted, and their memory be used at once."""
        scheduler = self._scheduler
        runs = [r.status is _RUNNING for r in requests]
        if getattr(scheduler, "defer_block_free", self._has_block_check):
            runs = [
                run and scheduler._request_blocks_can_be_freed(r)
                for run, r in zip(runs, requests, strict=True)
            ]
        return np.array(runs, np.bool_)

    @property
    def limits_adapters(self) -> bool:
        """Whether vLLM may pass over requests that could start for those of other adapters."""
        return self._max_loras is not None

    def fits_batch(self, requests: list[Any]) -> NDArray[np.bool_]:
        """Which requests `[n]` vLLM's limit on adapters in one batch lets start beside the running ones."""
        if self._max_loras is None:
            return np.ones(len(requests), np.bool_)
        present = {r.lora_request.lora_int_id for r in self._scheduler.running if r.lora_request is not None}
        room = len(present) < self._max_loras
        return np.array(
            [room or r.lora_request is None or r.lora_request.lora_int_id in present for r in requests],
            np.bool_,
        )

    def admits(self) -> bool:
        """Whether vLLM starts waiting requests at all: it is not paused."""
        return bool(self._scheduler.pause_state.value == 0)

    def free_slots(self) -> int:
        """How many more requests may run."""
        scheduler = self._scheduler
        free: int = self._limit - len(scheduler.running) - scheduler.num_waiting_for_streaming_input
        return free

    def lower_limit(self, running: int) -> None:
        """Let at most `running` requests run, until `restore_limit`."""
        # Requests that hold blocks while they wait are vLLM's to drain first, and count as present.
        extra = self._scheduler.num_waiting_for_streaming_input + len(
            getattr(self._scheduler, "kv_holding_waiting", ())
        )
        self._lowered = True
        setattr(self._scheduler, self._limit_name, min(running + extra, self._limit))

    def restore_limit(self) -> None:
        """Let as many requests run as vLLM's own limit says."""
        if self._lowered:
            self._lowered = False
            setattr(self._scheduler, self._limit_name, self._limit)

    def room(self) -> Room:
        """Slots and KV memory that are left."""
        running = len(self._scheduler.running)
        return Room(self.free_slots(), self.free_tokens(), self.capacity_tokens, running)

    def memory_may_run_out(self) -> bool:
        """Whether the running requests alone could use up the free KV blocks in one step."""
        scheduler = self._scheduler
        return self.free_tokens() < scarce_tokens(
            scheduler.max_num_scheduled_tokens, self._block_tokens, len(scheduler.running)
        )

    def kv_usage(self) -> float:
        """Used share of the KV cache, 0 to 1."""
        usage: float = self._scheduler.kv_cache_manager.usage
        return usage

    def free_tokens(self) -> float:
        """Tokens that fit in the free KV blocks."""
        return float(self._pool.get_num_free_blocks() * self._tokens_a_block)

    def held_tokens(self, requests: list[Any]) -> NDArray[np.float64]:
        """KV tokens that running requests `[n]` hold."""
        return self.whole_blocks(np.array([r.num_computed_tokens for r in requests], np.int64))

    def whole_blocks(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """`tokens` `[n]` of KV cache, rounded up to whole blocks."""
        return np.asarray(-(-tokens // self._block_tokens) * self._block_tokens, np.float64)
