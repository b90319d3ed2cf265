"""A second engine, slow and plain, against which the simulator is checked: one object a request, one step at
a time, every block of the KV cache by its number.

Written from vLLM's scheduler (vllm/v1/core/sched/scheduler.py), its block pool (vllm/v1/core/block_pool.py)
and TRAIL's own side of it (trail/engine/order/ordering.py), not from the simulator. Times are whole numbers.
"""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from trail.policy import decide
from trail.policy.guard import Guard
from trail.policy.ranks import Terms, effective_ranks
from trail.policy.sizes import rank_requests
from trail.policy.spec import PolicySpec
from trail.simulation.engine.config import EngineConfig
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.steptime import TICKS_PER_S, StepTicks
from trail.simulation.engine.workload import Workload

LOOK_TICKS = TICKS_PER_S // 10


@dataclass(eq=False)
class Request:
    number: int
    arrival: int
    prompt: int
    output: int
    age: int = 0
    computed: int = 0
    """Tokens in the KV cache; 0 while waiting."""
    blocks: list[int] = field(default_factory=list)
    admitted: bool = False
    ended: bool = False
    resumed_age: int = 0
    gave_way: int = 0
    computed_once: int = 0
    recomputed: int = 0
    token_times: list[int] = field(default_factory=list)
    started: int = -1
    came: int = 0
    """Steps before it was seen."""

    @property
    def known(self) -> int:
        return self.prompt + self.age


class Pool:
    """Blocks by number; the front of `free` is taken first."""

    def __init__(self, blocks: int, caching: bool) -> None:
        self.free = deque(range(blocks))
        self.holds: dict[int, tuple[int, int]] = {}
        """What a block holds: request and place in its context. Also of blocks in use."""
        self.caching = caching

    def take(self) -> int:
        block = self.free.popleft()
        self.holds.pop(block, None)
        return block

    def give(self, request: Request, size: int) -> None:
        front, back = [], []
        for place in reversed(range(len(request.blocks))):
            block = request.blocks[place]
            full = (place + 1) * size <= request.computed
            if full and self.caching:
                self.holds[block] = (request.number, place)
                back.append(block)
            else:
                front.append(block)
        self.free.extendleft(reversed(front))
        self.free.extend(back)
        request.blocks = []

    def hits(self, request: Request, size: int) -> list[int]:
        """Blocks of the beginning of its own context that are still there; never its last token."""
        where = {held: block for block, held in self.holds.items() if block in self.free}
        found: list[int] = []
        while (len(found) + 1) * size <= request.known - 1 and (request.number, len(found)) in where:
            found.append(where[request.number, len(found)])
        return found


class ReferenceEngine:
    def __init__(
        self,
        config: EngineConfig,
        work: Workload,
        ticks: StepTicks,
        spec: PolicySpec,
        predictions: Predictions,
    ) -> None:
        self.config, self.ticks, self.spec, self.predictions = config, ticks, spec, predictions
        self.requests = [
            Request(i, round(float(at) * TICKS_PER_S), int(p), int(o))
            for i, (at, p, o) in enumerate(
                zip(work.arrival_s, work.prompt_tokens, work.output_tokens, strict=True)
            )
        ]
        self.arrival_s = work.arrival_s
        endless = sum(-(-(r.prompt + r.output) // config.block_tokens) for r in self.requests)
        self.capacity = config.kv_blocks if config.kv_blocks is not None else endless
        self.pool = Pool(self.capacity, config.prefix_cache)
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.leaving: list[Request] = []
        """Ended in the last step, which asynchronous scheduling does not know yet."""
        self.now = 0
        self.seen_until = 0
        self.steps: list[tuple[int, int, int, int, tuple[int, ...], int]] = []
        self.denied: set[int] = set()
        self.policy_preemptions = self.memory_preemptions = 0
        self.computed_tokens = self.generated = self.wasted = 0
        self.last_step = 0
        self.came = 0
        self.starts = 0
        self.guard = Guard()
        self.looked_at_queue = False
        self.next_look = 0
        self.terms = Terms.of(spec, mean_initial=0.0)
        self.stuck: Request | None = None
        self.arrived = 0
        self.told = 0
        """Requests whose initial prediction the board shows."""

    # --- what the board says -------------------------------------------------------------------------------

    def row(self, request: Request, shown_age: int) -> tuple[float, float, int, int]:
        """Rank, slope, cut-off and age of the newest row made from a token before `shown_age`."""
        p, i = self.predictions, request.number
        if len(self.steps) < request.came + self.config.initial_lag:
            mean = self.terms.mean_initial
            return mean, 1.0, math.floor(self.spec.c * mean), 0
        age, remaining, index = 0, p.initial[i], p.gittins_initial[i]
        for k in range((request.output - 1) // p.every + 1):
            if k * p.every < shown_age and self.spec.name in ("trail", "adaptive", "mlfq"):
                age = k * p.every
                remaining, index = p.refined[p.first[i] + k], p.gittins[p.first[i] + k]
        made = rank_requests(
            self.spec,
            initial=[p.initial[i]],
            remaining=np.array([remaining], np.float32),
            exact=[request.output],
            age=[age],
            prompt_tokens=[request.prompt],
            gittins=np.array([index], np.float32),
        )
        return float(made.rank[0]), float(made.slope[0]), int(made.cutoff[0]), age

    def predicted_left(self, request: Request) -> float:
        p, i = self.predictions, request.number
        age, remaining = 0, np.float32(p.initial[i])
        for k in range((request.output - 1) // p.every + 1):
            if k * p.every < request.age and self.spec.name in ("trail", "adaptive", "mlfq"):
                age, remaining = k * p.every, p.refined[p.first[i] + k]
        return max(float(remaining) - (request.age - age), 0.0)

    def look(self, requests: list[Request], running: bool) -> dict[str, np.ndarray]:
        """Size, rank, protection and effective rank of a queue's requests."""
        lag = self.config.prediction_lag
        size, cutoff, uncomputed = [], [], []
        for r in requests:
            shown = max(r.age - lag, r.resumed_age) if running else r.age
            rank, slope, cut, row_age = self.row(r, shown)
            size.append(max(rank - slope * (r.age - row_age), 0.0))
            cutoff.append(cut)
            uncomputed.append(r.known - r.computed if running else r.known)
        ages = np.array([r.age for r in requests])
        protected = np.zeros(len(requests), np.bool_)
        if self.terms.preempt:
            protected = decide.is_protected(
                np.array([r.admitted for r in requests], np.bool_),
                ages,
                np.array(cutoff, np.uint32),
                np.array([r.gave_way for r in requests]) if running else None,
                self.terms.max_preemptions,
            )
        facts = {
            "arrival_s": np.array([self.arrival_s[r.number] for r in requests], np.float64),
            "deadline_s": np.full(len(requests), np.inf),
            "priority": np.zeros(len(requests)),
            "uncomputed_tokens": np.array(uncomputed, np.int64),
        }
        sizes = np.array(size, np.float64)
        nobody = np.zeros(len(requests), np.bool_)
        return {
            "size": sizes,
            "rank": effective_ranks(self.terms, size=sizes, protected=nobody, **facts),
            "protected": protected,
            "effective": effective_ranks(self.terms, size=sizes, protected=protected, **facts),
            "arrival": np.array([r.number for r in requests]),
        }

    # --- TRAIL's side --------------------------------------------------------------------------------------

    def present(self) -> int:
        return len(self.running) + len(self.leaving)

    def reserve(self) -> float:
        return max(self.spec.kv_reserve_tokens, 0.0)

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.config.block_tokens)

    def before(self) -> tuple[int, list[Request]]:
        """Order the queues and preempt: how many may run, and who is held back in this step."""
        config, limit = self.config, self.config.slots
        held: list[Request] = []
        if self.spec.orders:
            self.board_hears()
            self.guard_looks()
            tight = len(self.running) > 1 and (
                len(self.pool.free) * config.block_tokens
                < config.token_budget + config.block_tokens * len(self.running)
            )
            if not self.waiting and not tight:
                return limit, held
            if self.waiting:
                about = self.look(self.waiting, running=False)
                order = decide.serving_order(about["effective"], about["arrival"])
                self.waiting = [self.waiting[i] for i in order]
            if self.terms.preempt and self.running:
                if tight:
                    about = self.look(self.running, running=True)
                    order = decide.serving_order(about["effective"], about["arrival"])
                    self.running = [self.running[i] for i in order]
                if self.waiting:
                    # Room is made among those that ran before the step; a slot's loser is not asked again.
                    held += self.for_slots()
                    held += self.for_memory()
        if self.spec.kv_reserve_tokens >= 0 and self.waiting:
            free = max(config.slots - self.present(), 0)
            size = config.block_tokens
            starting = [float(self.blocks(r.known) * size) for r in self.waiting[:free]]
            used = float((self.capacity - len(self.pool.free)) * size)
            allowed = decide.admission_limit(
                starting, used, float(self.capacity * size), self.spec.kv_reserve_tokens, self.present()
            )
            if allowed < len(starting):
                limit = self.present() + allowed
        return limit, held

    def for_slots(self) -> list[Request]:
        free = max(self.config.slots - self.present(), 0)
        if free >= len(self.waiting):
            return []
        waits, runs = self.look(self.waiting, running=False), self.look(self.running, running=True)
        if not runs["effective"].max() > waits["effective"][free]:
            self.note_denied(free, waits, runs)
            return []
        swaps = decide.slot_swaps(
            waits["effective"],
            runs["effective"],
            runs["protected"],
            runs["arrival"],
            free,
            waiting_size=waits["size"],
            running_size=runs["size"],
            ratio=self.terms.preempt_ratio,
        )
        # Those that run afterwards, but the newcomer itself, keep their reserve.
        room = len(self.pool.free) * self.config.block_tokens - self.reserve() * (self.present() - 1)
        victims = []
        for victim, newcomer in swaps[: len(self.running)]:
            blocks = len(self.running[victim].blocks) - self.blocks(self.waiting[newcomer].known)
            room += blocks * self.config.block_tokens
            if room < 0:
                break
            victims.append(self.running[victim])
        return self.preempt(victims)

    def for_memory(self) -> list[Request]:
        head = self.waiting[0]
        if head is not self.stuck or self.present() >= self.config.slots:
            return []
        size = self.config.block_tokens
        need = self.blocks(head.known) * size + self.reserve() * self.present()
        free = len(self.pool.free) * size
        if need <= free:
            return []
        waits, runs = self.look(self.waiting, running=False), self.look(self.running, running=True)
        victims = decide.memory_victims(
            float(need),
            float(free),
            newcomer=float(waits["effective"][0]),
            running=runs["effective"],
            running_protected=runs["protected"],
            running_arrival=runs["arrival"],
            held_tokens=np.array([len(r.blocks) * size for r in self.running], np.float64) + self.reserve(),
            most=4,
            newcomer_size=float(waits["size"][0]),
            running_size=runs["size"],
            ratio=self.terms.preempt_ratio,
        )
        if not victims:
            self.note_denied(0, waits, runs)
        return self.preempt([self.running[i] for i in victims])

    def note_denied(self, newcomer: int, waits: dict[str, np.ndarray], runs: dict[str, np.ndarray]) -> None:
        longer = decide.outranked(
            float(waits["effective"][newcomer]),
            runs["rank"],
            newcomer_size=float(waits["size"][newcomer]),
            running_size=runs["size"],
            ratio=self.terms.preempt_ratio,
        )
        if (runs["protected"] & longer).any():
            self.denied.add(self.waiting[newcomer].number)

    def preempt(self, victims: list[Request]) -> list[Request]:
        for victim in victims:
            self.running.remove(victim)
            self.lose(victim)
            victim.gave_way += 1
            self.policy_preemptions += 1
        return victims

    def lose(self, request: Request) -> None:
        request.computed_once = max(request.computed_once, request.computed)
        self.pool.give(request, self.config.block_tokens)
        request.computed = 0

    def board_hears(self) -> None:
        lag = self.config.initial_lag
        told = sum(r.came + lag <= len(self.steps) for r in self.requests[: self.arrived])
        if lag and told > self.told:
            self.told = told
            self.state_terms(self.terms.wait_s, self.terms.token_s)
        self.told = told

    def state_terms(self, wait_s: float, token_s: float) -> None:
        mean = float(np.cumsum(self.predictions.initial)[self.told - 1] / self.told) if self.told else 0.0
        prompt = float(np.mean([r.prompt for r in self.requests[: self.told]])) if self.told else 0.0
        self.terms = Terms.of(
            self.spec, mean_initial=mean, mean_prompt=prompt, wait_s=wait_s, token_s=token_s
        )

    def guard_looks(self) -> None:
        if not self.terms.boost:
            return
        if self.waiting:
            if self.now < self.next_look:
                return
            self.next_look = self.now + LOOK_TICKS
        elif not self.looked_at_queue:
            return
        self.looked_at_queue = bool(self.waiting)
        queued = sum(self.predicted_left(r) for r in self.waiting)
        wait_s = self.guard.observe(self.now / TICKS_PER_S, queued, float(self.generated))
        wait_s = wait_s if wait_s >= 1e-3 else 0.0
        if abs(wait_s - self.terms.wait_s) > 0.05 * self.terms.wait_s:
            self.state_terms(wait_s, self.last_step / TICKS_PER_S)

    # --- vLLM ----------------------------------------------------------------------------------------------

    def run(self, most_steps: int = 200_000) -> None:
        left = list(self.requests)
        while any(not r.ended for r in self.requests):
            assert len(self.steps) < most_steps, "the engine does not come to an end"
            if not self.running and not self.leaving and not self.waiting:
                self.now = max(self.now, left[0].arrival)
                self.seen_until = self.now
            before = self.arrived
            while left and left[0].arrival <= self.seen_until:
                left[0].came = len(self.steps)
                self.waiting.append(left.pop(0))
                self.arrived += 1
            self.came = self.arrived - before
            self.step()

    def step(self) -> None:
        config, size = self.config, self.config.block_tokens
        limit, held = self.before()
        for request in held:
            assert request not in self.waiting
        budget = config.token_budget - len(self.leaving)
        scheduled: list[tuple[Request, int]] = []
        lost: list[Request] = []
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            tokens = min(request.known - request.computed, budget)
            need = self.blocks(request.computed + tokens) - len(request.blocks)
            while need > len(self.pool.free):
                victim = self.running.pop()
                self.lose(victim)
                self.memory_preemptions += 1
                self.waiting.insert(0, victim)
                lost.append(victim)
                if victim is request:
                    break
            if request in lost:
                break
            request.blocks += [self.pool.take() for _ in range(need)]
            scheduled.append((request, tokens))
            budget -= tokens
            index += 1
        while not lost and budget > 0 and self.waiting and self.present() < limit:
            request = self.waiting[0]
            hits = self.pool.hits(request, size) if config.prefix_cache else []
            new = request.known - len(hits) * size
            if not config.chunked_prefill and new > budget:
                break
            tokens = min(new, budget)
            end = len(hits) * size + tokens
            if self.blocks(request.known if config.whole_prompt_must_fit else end) > len(self.pool.free):
                break
            self.waiting.pop(0)
            for block in hits:
                self.pool.free.remove(block)
            request.blocks = hits + [self.pool.take() for _ in range(self.blocks(end) - len(hits))]
            request.computed = len(hits) * size
            request.resumed_age, request.admitted = request.age, True
            if request.started < 0:
                request.started, self.starts = self.starts, self.starts + 1
            self.running.append(request)
            scheduled.append((request, tokens))
            budget -= tokens
        self.stuck = self.waiting[0] if self.waiting and self.present() < config.slots else None
        # Held back for the step; the next one puts the queue in order.
        self.waiting = held + self.waiting
        self.compute(scheduled)

    def compute(self, scheduled: list[tuple[Request, int]]) -> None:
        decoding = [r for r, _ in scheduled if r.age > r.resumed_age]
        prompts = [(r, tokens) for r, tokens in scheduled if r not in decoding]
        prefill = sum(tokens for _, tokens in prompts)
        read = sum(r.computed + tokens for r, tokens in scheduled)
        self.last_step = self.ticks.step(len(decoding) + len(self.leaving), prefill, read, self.came)
        start, used = self.now, self.capacity - len(self.pool.free)
        self.now += self.last_step
        self.seen_until = start if self.config.async_scheduling else self.now
        self.steps.append(
            (start, self.now, len(decoding) + len(self.leaving), prefill,
             tuple(r.number for r in self.running), used)
        )  # fmt: skip
        self.wasted += len(self.leaving)
        for request in self.leaving:
            self.pool.give(request, self.config.block_tokens)
        self.leaving = []
        for request, tokens in scheduled:
            again = max(min(request.computed + tokens, request.computed_once) - request.computed, 0)
            request.recomputed += again
            request.computed += tokens
            self.computed_tokens += tokens
            if request.computed == request.known:
                request.age += 1
                self.generated += 1
                request.token_times.append(self.now)
            if request.age == request.output:
                request.ended = True
                self.running.remove(request)
                if self.config.async_scheduling:
                    self.leaving.append(request)
                else:
                    self.pool.give(request, self.config.block_tokens)
        assert len(self.pool.free) + sum(len(r.blocks) for r in self.requests) == self.capacity
