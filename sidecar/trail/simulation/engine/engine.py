"""A vLLM engine iteration by iteration: slots, token budget, KV blocks, chunked prefill, recompute.

What `vllm/v1/core/sched/scheduler.py` does in one `schedule()`, in its order: the running requests first, one
token each or the next chunk of a prompt, the last of them preempted while blocks are missing; then, unless
somebody lost its blocks in this step, the waiting ones in their order while slots, budget and blocks last. An
`Order` comes before that, as TRAIL's scheduler does.

All decoding requests get older together, so that what a step needs to know of them are sums (`decoding`): a
step costs the same for 10 and for 250 of them, and steps in which nothing can change are taken together.

With asynchronous scheduling a request that ended keeps slot and blocks for one step more and is computed once
more in it; a request that came during a step is seen one step later. Times are ticks (`steptime`).
"""

import numpy as np
from numpy.typing import NDArray

from trail.policy.step import Room
from trail.simulation.engine.blocks import FreeBlocks
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.decoding import Decoding
from trail.simulation.engine.journal import Journal, Step
from trail.simulation.engine.order import ENDLESS, NOBODY, Order, Quiet
from trail.simulation.engine.steptime import TICKS_PER_S, StepTicks
from trail.simulation.engine.workload import Workload

Chunk = tuple[int, int, int]
"""A request, and the tokens of it that are computed in a step: the first, and the one after the last."""


class Engine:
    """The state of one engine. Requests are numbers in order of arrival; per-request columns are `[n]`.

    Raises ValueError for a workload that holds a request that could never run.
    """

    def __init__(
        self, config: EngineConfig, work: Workload, ticks: StepTicks, *, trace: bool = False
    ) -> None:
        _check(config, work)
        n = len(work)
        self.config, self.work, self._ticks = config, work, ticks
        self.prompt: list[int] = work.prompt_tokens.tolist()
        self.output: list[int] = work.output_tokens.tolist()
        self._arrivals: list[int] = [round(t * TICKS_PER_S) for t in work.arrival_s.tolist()]
        every = -(-(work.prompt_tokens + work.output_tokens) // config.block_tokens)
        self.capacity_blocks = config.kv_blocks if config.kv_blocks is not None else int(every.sum())
        self.blocks = FreeBlocks(self.capacity_blocks, keep=config.prefix_cache)
        self.journal = Journal(n, trace=trace)
        self.running: list[int] = []
        self.prefilling: dict[int, int] = {}
        """Running requests whose known tokens are not all computed, and how many are."""
        self.age: list[int] = [0] * n
        """Generated tokens of those that do not run or are prefilling; of the others see `age_of`."""
        self.base: NDArray[np.int64] = np.zeros(n, np.int64)
        """Of running requests: the clock less generated tokens."""
        self.resumed_age: NDArray[np.int64] = np.zeros(n, np.int64)
        """Generated tokens when it started last."""
        self.gave_way: NDArray[np.int64] = np.zeros(n, np.int64)
        """Preemptions for another request, not for memory."""
        self.clock = 0
        """Steps so far."""
        self.now = 0
        self.last_lost = NOBODY
        """Who lost its memory last in the step that is put together."""
        self.last_step_ticks = 0
        self._decoding = Decoding(config.block_tokens)
        self._stalled: set[int] = set()
        """Those that decode, but got no token in the last step, because the budget was used up."""
        self._ended: list[tuple[int, int]] = []
        """Blocks, full and partial, of requests that ended in the last step and are not yet known to have."""
        self._arrived = 0
        self._came = 0
        """Requests that have come since the step before."""
        self._left = n
        self._visible = 0

    def present(self) -> int:
        """Requests that hold a slot."""
        return len(self.running) + len(self._ended)

    def age_of(self, request: int) -> int:
        """Generated tokens of a running request."""
        return self.clock - int(self.base[request])

    def known_tokens(self, request: int) -> int:
        """Prompt and generated tokens of a request that waits or is prefilling."""
        return self.prompt[request] + self.age[request]

    def computed_tokens(self, request: int) -> int:
        """Tokens of a running request whose keys and values are in the cache."""
        part = self.prefilling.get(request)
        return part if part is not None else self.prompt[request] + self.age_of(request) - 1

    def whole_blocks(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """`tokens` `[n]` of KV cache, rounded up to whole blocks."""
        size = self.config.block_tokens
        return np.asarray(-(-tokens // size) * size, np.float64)

    def room(self) -> Room:
        """Slots and KV memory that are left."""
        size, present = self.config.block_tokens, self.present()
        return Room(
            free_slots=self.config.slots - present,
            free_tokens=float(self.blocks.free * size),
            capacity_tokens=float(self.capacity_blocks * size),
            running=present,
        )

    def run(self, order: Order) -> None:
        """Serve everything."""
        n = len(self.work)
        while self._left:
            if not self.running and not self._ended and not len(order):
                self.now = max(self.now, self._arrivals[self._arrived])
                self._visible = self.now
            begin = self._arrived
            while self._arrived < n and self._arrivals[self._arrived] <= self._visible:
                self._arrived += 1
            self._came = self._arrived - begin
            if self._came:
                order.arrive(begin, self._arrived)
            self._step(order)

    def preempt(self, request: int, *, for_memory: bool = False) -> None:
        """Take a running request's slot and blocks; the caller keeps it."""
        computed, age = self.computed_tokens(request), self.age_of(request)
        self.running.remove(request)
        if self.prefilling.pop(request, None) is None:
            self._leave(request)
            self._stalled.discard(request)
            self.journal.pause(request, self.now)
        self.age[request] = age
        full, part = divmod(computed, self.config.block_tokens)
        self.blocks.release(full, 1 if part else 0, request)
        self.journal.preempt(request, computed, for_memory=for_memory)
        if not for_memory:
            self.gave_way[request] += 1

    def _step(self, order: Order) -> None:
        self.last_lost = NOBODY
        order.before()
        left = self.config.token_budget - len(self._ended)
        stalled: list[int] = []
        plan = self._all_fit(left)
        if plan is not None:
            chunks, left = plan
        else:
            chunks, stalled, left = self._schedule_running(order, left)
        if self.last_lost == NOBODY:
            self._start_waiting(order, chunks, left)
        order.restore()
        busy = bool(self.prefilling or self._ended or stalled or self._stalled or self.last_lost != NOBODY)
        busy = busy or bool(self._came and self._ticks.arrival)
        if self.config.jumps and self._decoding.count and not busy:
            steps = self._quiet_steps(order.quiet())
            if steps > 1:
                self.blocks.take(self._decoding.new_blocks(self.clock + 1, steps - 1))
        else:
            steps = 1
        self._execute(chunks, stalled, steps)

    def _all_fit(self, left: int) -> tuple[list[Chunk], int] | None:
        """Chunks and the budget left where all that run fit without a second look; their blocks are taken.

        That is so when prompts come behind all that decode, and nobody is short of budget or blocks.
        """
        left -= self._decoding.count
        prefilling = list(self.prefilling)
        if left < 0 or (prefilling and self.running[-len(prefilling) :] != prefilling):
            return None
        blocks = self._decoding.new_blocks(self.clock, 1)
        chunks = []
        for request in prefilling:
            if left <= 0:
                break
            begin = self.prefilling[request]
            end = min(begin + left, self.known_tokens(request))
            blocks += self._blocks_of(end) - self._blocks_of(begin)
            chunks.append((request, begin, end))
            left -= end - begin
        if blocks > self.blocks.free:
            return None
        self.blocks.take(blocks)
        return chunks, left

    def _schedule_running(self, order: Order, left: int) -> tuple[list[Chunk], list[int], int]:
        """vLLM's loop over running requests: chunks, who decodes but gets no token, and the budget left."""
        running, blocks = self.running, self.blocks
        chunks: list[Chunk] = []
        index = 0
        while index < len(running) and left > 0:
            request = running[index]
            begin = self.computed_tokens(request)
            prefilling = request in self.prefilling
            end = min(begin + left, self.known_tokens(request)) if prefilling else begin + 1
            need = self._blocks_of(end) - self._blocks_of(begin)
            while need > blocks.free and self.last_lost != request:
                self.last_lost = running[-1]
                self.preempt(self.last_lost, for_memory=True)
                order.lost(self.last_lost)
            if self.last_lost == request:
                break
            blocks.take(need)
            left -= end - begin
            index += 1
            if prefilling:
                chunks.append((request, begin, end))
        stalled = [r for r in running[index:] if r not in self.prefilling]
        return chunks, stalled, left

    def _start_waiting(self, order: Order, chunks: list[Chunk], left: int) -> None:
        """vLLM's loop over waiting requests; what they compute is added to `chunks`."""
        config, blocks = self.config, self.blocks
        while left > 0 and self.present() < order.limit:
            request = order.first()
            if request == NOBODY:
                return
            known, cached = self.known_tokens(request), blocks.cached(request)
            begin = cached * config.block_tokens
            end = min(known, begin + left)
            if end < known and not config.chunked_prefill:
                return
            must_fit = known if config.whole_prompt_must_fit else end
            if self._blocks_of(must_fit) > blocks.free:
                return
            order.pop()
            blocks.take_back(request)
            blocks.take(self._blocks_of(end) - cached)
            self.running.append(request)
            self.prefilling[request] = begin
            self.base[request] = self.clock - self.age[request]
            self.resumed_age[request] = self.age[request]
            self.journal.start(request)
            chunks.append((request, begin, end))
            left -= end - begin

    def _quiet_steps(self, quiet: Quiet) -> int:
        """How many steps, this one among them, go by before anything can change."""
        steps = min(quiet.steps, self._decoding.next_end() - self.clock)
        if steps <= 1:
            return 1
        # This step's blocks have been taken.
        spare = self.blocks.free + self._decoding.new_blocks(self.clock, 1) - quiet.spare_blocks
        if spare < 0:
            return 1
        if spare < self._decoding.new_blocks(self.clock, steps):
            steps = self._decoding.steps_within(self.clock, spare)
        steps = min(steps, self._steps_until(quiet.until))
        if (quiet.arrivals or self._ticks.arrival) and self._arrived < len(self.work):
            # Seen at the first start of a step after it or, a step ahead, at the next one.
            ahead = 1 if self.config.async_scheduling else 0
            steps = min(steps, self._steps_until(self._arrivals[self._arrived]) + ahead)
        return max(steps, 1)

    def _steps_until(self, ticks: int | None) -> int:
        """Steps alike to this one, this one among them, until the clock shows at least `ticks`."""
        if ticks is None:
            return ENDLESS
        decoding = self._decoding
        return self._ticks.decode_steps_until(
            ticks - self.now, decoding.count, decoding.context + decoding.count
        )

    def _execute(self, chunks: list[Chunk], stalled: list[int], steps: int) -> None:
        """Let the time of the step pass, and hand out its tokens."""
        for request in stalled:
            self._leave(request)
            self.journal.pause(request, self.now)
        start = self.now
        self._pass_time(chunks, steps)
        if self.journal.steps is not None:
            self._trace(start, chunks, steps)
        released, self._ended = self._ended, []
        for full, part in released:
            self.blocks.release(full, part)
        for request in self._stalled.difference(stalled):
            self.journal.token(request, self.clock, self.now)
        for request in stalled:
            self._join(request, self.clock - 1 - int(self.base[request]))
        self._stalled = set(stalled)
        for request, begin, end in chunks:
            self._computed_chunk(request, begin, end)
        for request in self.prefilling:
            self.base[request] = self.clock - self.age[request]
        for request in self._decoding.ending(self.clock):
            self._leave(request)
            self._finish(request)
        self.journal.timeline.append((self.now, self.journal.count.generated_tokens))

    def _pass_time(self, chunks: list[Chunk], steps: int) -> None:
        decoding, count = self._decoding, self.journal.count
        wasted = len(self._ended)
        prefill = sum(end - begin for _, begin, end in chunks)
        read = decoding.context + decoding.count + sum(end for _, _, end in chunks)
        if steps > 1:
            self.now += self._ticks.decode(steps - 1, decoding.count, read)
            read += (steps - 1) * decoding.count
        self.last_step_ticks = self._ticks.step(decoding.count + wasted, prefill, read, self._came)
        self._visible = self.now
        self.now += self.last_step_ticks
        if not self.config.async_scheduling:
            self._visible = self.now
        self.clock += steps
        self.journal.step(self.clock, self.last_step_ticks)
        decoding.context += steps * decoding.count
        count.steps += steps
        count.generated_tokens += steps * decoding.count
        count.computed_tokens += steps * decoding.count + prefill
        count.wasted_tokens += wasted
        count.most_blocks = max(count.most_blocks, self.capacity_blocks - self.blocks.free)

    def _trace(self, start: int, chunks: list[Chunk], steps: int) -> None:
        assert self.journal.steps is not None  # noqa: S101 - the caller looked
        self.journal.steps.append(
            Step(
                steps,
                start,
                self.now,
                self._decoding.count + len(self._ended),
                sum(end - begin for _, begin, end in chunks),
                tuple(self.running),
                self.capacity_blocks - self.blocks.free,
            )
        )

    def _computed_chunk(self, request: int, begin: int, end: int) -> None:
        self.journal.compute(request, begin, end)
        if end < self.known_tokens(request):
            self.prefilling[request] = end
            return
        del self.prefilling[request]
        self.journal.count.generated_tokens += 1
        self.journal.token(request, self.clock, self.now)
        self.age[request] += 1
        if self.age[request] == self.output[request]:
            self._finish(request)
        else:
            self._join(request, self.age[request])

    def _finish(self, request: int) -> None:
        self.running.remove(request)
        self.journal.finish(request, self.now)
        self._left -= 1
        full, part = divmod(self.prompt[request] + self.output[request] - 1, self.config.block_tokens)
        if self.config.async_scheduling:
            self._ended.append((full, 1 if part else 0))
        else:
            self.blocks.release(full, 1 if part else 0)

    def _join(self, request: int, age: int) -> None:
        """`request` has generated `age` tokens and gets another with every step from now on."""
        base = self.clock - age
        self.base[request] = base
        self._decoding.add(request, base, self.clock, self.prompt[request], self.output[request])

    def _leave(self, request: int) -> None:
        """`request` no longer decodes, or not in this step."""
        self._decoding.remove(request, int(self.base[request]), self.clock, self.prompt[request])

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.config.block_tokens)


def _check(config: EngineConfig, work: Workload) -> None:
    # The last token generated is never fed back, but is known when a request has to start again before it.
    needed = work.prompt_tokens + work.output_tokens
    worst = int(np.argmax(needed))
    blocks = -(-int(needed[worst]) // config.block_tokens)
    if config.kv_blocks is not None and blocks > config.kv_blocks:
        raise ValueError(
            f"request {worst} needs {blocks} KV blocks for {needed[worst]} tokens, the engine has"
            f" {config.kv_blocks}; give it more, or leave such requests out"
        )
    if not config.chunked_prefill and int(needed[worst]) > config.token_budget:
        raise ValueError(
            f"without chunked prefill the token budget must hold a whole request: request {worst} has"
            f" {needed[worst]} tokens, the budget is {config.token_budget}"
        )
