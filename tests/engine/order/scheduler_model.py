"""A small model of vLLM's scheduler: slots, KV blocks and FCFS queues as in vllm/v1/core/sched/scheduler.py.

It has the attributes that TRAIL's side uses and nothing else, so that a test runs thousands of steps in a
second. One `step` schedules, gives every running request one token and ends those that have all of theirs.
"""

from types import SimpleNamespace
from typing import Any

from vllm import SamplingParams
from vllm.v1.core.sched.request_queue import FCFSRequestQueue
from vllm.v1.request import Request, RequestStatus

BLOCK = 4


class Pool:
    def __init__(self, blocks: int) -> None:
        self.num_gpu_blocks = blocks + 1  # vLLM's null block
        self.free = blocks

    def get_num_free_blocks(self) -> int:
        return self.free


def make_request(number: int, prompt: int, length: int) -> Request:
    return Request(f"r{number}", [7] * prompt, SamplingParams(max_tokens=length), None)


class SchedulerModel:
    """FCFS with preemption of `running[-1]` when memory runs out. `side` is told what vLLM would tell it."""

    def __init__(self, slots: int, blocks: int) -> None:
        self.kv_cache_manager = SimpleNamespace(block_pool=Pool(blocks), usage=0.0, enable_caching=True)
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=[None])
        self.scheduler_config = SimpleNamespace(policy="fcfs")
        self.lora_config: Any = None
        self.block_size = BLOCK
        self.max_num_running_reqs = slots
        self.max_num_active_reqs = slots
        self.max_num_scheduled_tokens = 10**6
        self.num_waiting_for_streaming_input = 0
        self.pause_state = SimpleNamespace(value=0)
        self.kv_holding_waiting: tuple[Any, ...] = ()
        self.running: list[Request] = []
        self.waiting = FCFSRequestQueue()
        self.requests: dict[str, Request] = {}
        self.held: dict[str, int] = {}
        self.side: Any = None
        self.preempted: list[Request] = []
        self.finished: list[str] = []
        self.ended_at: dict[str, int] = {}
        self.steps = 0
        self.max_model_len = 512
        self.vllm_config = SimpleNamespace(
            parallel_config=SimpleNamespace(data_parallel_index=0),
            model_config=SimpleNamespace(model="model", dtype="torch.float32", get_hidden_size=lambda: 64),
        )
        self.peak_tokens = 0

    @property
    def pool(self) -> Pool:
        pool: Pool = self.kv_cache_manager.block_pool
        return pool

    def add_request(self, request: Request) -> None:
        self.requests[request.request_id] = request
        self.waiting.add_request(request)
        if self.side is not None:
            self.side.added(request)

    def _preempt_request(self, request: Request, timestamp: float) -> None:
        if self.side is not None:
            self.side.preempting(request)
        assert request.status == RequestStatus.RUNNING
        assert request not in self.running
        self.pool.free += self.held.pop(request.request_id)
        request.status = RequestStatus.PREEMPTED
        request.num_computed_tokens = 0
        request.num_preemptions += 1
        self.waiting.prepend_request(request)
        self.preempted.append(request)

    def _allocate(self, request: Request, tokens: int) -> bool:
        more = -(-tokens // BLOCK) - self.held.get(request.request_id, 0)
        if more > self.pool.free:
            return False
        self.pool.free -= max(more, 0)
        self.held[request.request_id] = self.held.get(request.request_id, 0) + max(more, 0)
        return True

    def schedule(self) -> Any:
        scheduled: dict[str, int] = {}
        self.preempted = []
        index = 0
        while index < len(self.running):
            request = self.running[index]
            while not self._allocate(request, request.num_tokens):
                victim = self.running.pop()
                self._preempt_request(victim, 0.0)
                if victim is request:
                    break
            else:
                scheduled[request.request_id] = request.num_tokens - request.num_computed_tokens
                index += 1
        if not self.preempted:
            while self.waiting and len(self.running) < self.max_num_active_reqs:
                request = self.waiting.peek_request()
                if not self._allocate(request, request.num_tokens):
                    break
                self.waiting.pop_request()
                request.status = RequestStatus.RUNNING
                self.running.append(request)
                scheduled[request.request_id] = request.num_tokens
        for request_id, tokens in scheduled.items():
            self.requests[request_id].num_computed_tokens += tokens
        self.peak_tokens = max(self.peak_tokens, sum(r.num_tokens for r in self.running))
        self.kv_cache_manager.usage = 1 - self.pool.free / (self.pool.num_gpu_blocks - 1)
        return SimpleNamespace(num_scheduled_tokens=scheduled)

    def update(self) -> None:
        """Every running request gets a token; those that have all of theirs end."""
        self.steps += 1
        for request in list(self.running):
            request.append_output_token_ids(1)
            if request.num_output_tokens >= request.max_tokens:
                self.running.remove(request)
                request.status = RequestStatus.FINISHED_LENGTH_CAPPED
                self.pool.free += self.held.pop(request.request_id)
                del self.requests[request.request_id]
                self.finished.append(request.request_id)
                self.ended_at[request.request_id] = self.steps
                if self.side is not None:
                    self.side.freed(request)

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)
