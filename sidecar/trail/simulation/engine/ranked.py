"""TRAIL's order, from ranks and terms.

`RankedOrder.before` does in a step what `trail.engine.order.ordering` does, in the same order, with the same
functions of `trail.policy`.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trail.policy import decide
from trail.policy.guard import Guard
from trail.policy.queue_estimate import LEAST_S, MOVED
from trail.policy.ranks import Terms, ranks
from trail.policy.sizes import cutoff_age
from trail.policy.spec import PolicySpec
from trail.sidecar.pacing import SHARED_CORES
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.first_come import allowed_to_start
from trail.simulation.engine.order import ENDLESS, NOBODY, Quiet
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.rows import BoardRows, board_rows
from trail.simulation.engine.steptime import TICKS_PER_S
from trail.simulation.engine.waiting import RankedQueue

MAX_MEMORY_VICTIMS = 4
"""As in the engine: requests preempted in one step, at most, to make room for the head of the queue."""

_NO_DEADLINE = np.array(np.inf)
_NO_PRIORITY = np.array(0.0)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class _Running:
    """The running requests in the engine's order, with what the board and the terms make of them, `[n]`."""

    requests: Ints
    size: Floats
    rank: Floats
    protected: NDArray[np.bool_]
    effective: Floats

    def keep(self, kept: NDArray[np.intp]) -> None:
        """Only those at `kept`, in that order."""
        self.requests, self.size, self.rank = self.requests[kept], self.size[kept], self.rank[kept]
        self.protected, self.effective = self.protected[kept], self.effective[kept]


class RankedOrder:
    """TRAIL's scheduler: by rank, with limited preemption and a limit on admission.

    The board shows a new request's prediction `initial_lag` steps after it came, before which it ranks by
    the mean, and a refined one `prediction_lag` steps after the step whose hidden states it was made from;
    while a request waits the board catches up. While requests wait, the guard looks at the queue every
    the sidecar's `queue_look_every_s`, and once when nobody waits any more.
    """

    def __init__(self, spec: PolicySpec, engine: Engine, predictions: Predictions) -> None:
        self._spec, self._engine = spec, engine
        self._rows: BoardRows = board_rows(spec, engine.work, predictions)
        self._arrival_s = np.asarray(engine.work.arrival_s, np.float64)
        counted = np.arange(1, len(engine.work) + 1)
        self._means = np.cumsum(predictions.initial) / counted
        self._mean_prompts = np.cumsum(engine.work.prompt_tokens) / counted
        before = np.concatenate(([0.0], self._means[:-1]))
        self._unknown_size = np.zeros(len(before)) if spec.name == "mlfq" else before
        self._told = 0
        """Requests that the board has rows of; they come in order."""
        self._news: deque[tuple[int, int]] = deque()
        """From which step on it has rows of how many."""
        self._known = 0
        self._guard = Guard()
        self._observe_at = 0
        self._guard_saw_queue = False
        self._terms = Terms.of(spec, mean_initial=0.0)
        self._left: dict[int, float] = {}
        """Predicted tokens of every request that waits, as the guard counts them."""
        self._queued_tokens = 0.0
        self._waiting = RankedQueue()
        self._held: list[int] = []
        self._stuck = NOBODY
        self._denied: set[int] = set()
        self._all_protected = False
        self.limit = engine.config.slots

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held)

    def arrive(self, begin: int, end: int) -> None:
        self._known = end
        lag = self._engine.config.initial_lag
        if lag:
            self._news.append((self._engine.clock + lag, end))
        else:
            self._told = end
        self._insert(range(begin, end))

    def first(self) -> int:
        return self._waiting.requests[0] if self._waiting.requests else NOBODY

    def pop(self) -> None:
        self._queued_tokens -= self._left.pop(self._waiting.pop())

    def lost(self, request: int) -> None:
        self._insert((request,))

    def restore(self) -> None:
        engine, waiting = self._engine, self._waiting
        self.limit = engine.config.slots
        self._stuck = NOBODY
        if len(waiting) and engine.present() < engine.config.slots:
            # Whoever is first while a slot is free did not find memory; vLLM puts who lost its own in front.
            self._stuck = engine.last_lost if engine.last_lost != NOBODY else self.first()
        if self._held:
            self._insert(self._held)
            self._held = []

    def before(self) -> None:
        engine, waiting, terms = self._engine, self._waiting, self._terms
        if self._news and self._news[0][0] <= engine.clock:
            self._hear()
        if self._spec.boosts:
            self._observe()
            terms = self._terms
        tight = self._tight()
        if not len(waiting) and not tight:
            return
        running: _Running | None = None
        # With c = 0 whoever runs is protected: there is nothing to look for but whom that keeps waiting.
        if terms.preempt and engine.running and (tight or terms.c > 0 or not self._nobody_to_deny()):
            running = self._rank_running()
            if tight:
                self._sort_running(running)
        if not len(waiting):
            return
        if running is not None:
            self._preempt_for_slots(running)
            self._preempt_for_memory(running)
        free = max(engine.config.slots - engine.present(), 0)
        self.limit = allowed_to_start(engine, waiting.requests[:free], terms.kv_reserve_tokens)

    def quiet(self) -> Quiet:
        engine, terms = self._engine, self._terms
        slots_free = engine.present() < engine.config.slots
        if not terms.preempt:
            # From an arrival on the steps count until the board knows of it.
            asks = slots_free or self._spec.boosts or engine.config.initial_lag > 0
            return self._quiet_for(arrivals=asks)
        spare = self._tight_blocks() if len(engine.running) > 1 else 0
        if not len(self._waiting):
            # With every slot taken a request that comes may take one.
            return self._quiet_for(arrivals=True, spare_blocks=spare)
        if self._all_protected and self._nobody_to_deny():
            return self._quiet_for(arrivals=True, spare_blocks=spare)
        return Quiet(steps=1)

    def _quiet_for(self, *, arrivals: bool, spare_blocks: int = 0) -> Quiet:
        until = self._observe_at if self._spec.boosts and len(self._waiting) else None
        steps = self._news[0][0] - self._engine.clock if self._news else ENDLESS
        return Quiet(steps=steps, until=until, arrivals=arrivals, spare_blocks=spare_blocks)

    def _nobody_to_deny(self) -> bool:
        """Whether those whom protection keeps waiting have been counted."""
        engine, waiting = self._engine, self._waiting
        free = max(engine.config.slots - engine.present(), 0)
        candidates = [waiting.requests[free]] if free < len(waiting) else []
        if len(waiting) and self._stuck == waiting.requests[0]:
            candidates.append(self._stuck)
        return all(r in self._denied for r in candidates)

    def _tight_blocks(self) -> int:
        """Free blocks below which the running requests alone could use up memory in one step."""
        config = self._engine.config
        return -(
            -(config.token_budget + config.block_tokens * len(self._engine.running)) // config.block_tokens
        )

    def _tight(self) -> bool:
        return len(self._engine.running) > 1 and self._engine.blocks.free < self._tight_blocks()

    def _observe(self) -> None:
        """Feed the guard, and state the terms anew where W has moved."""
        engine = self._engine
        queued = len(self._waiting) > 0
        if queued:
            if engine.now < self._observe_at:
                return
            self._observe_at = engine.now + round(SHARED_CORES.queue_look_every_s * TICKS_PER_S)
        elif not self._guard_saw_queue:
            return
        self._guard_saw_queue = queued
        now_s = engine.now / TICKS_PER_S
        tokens = self._queued_tokens if queued else 0.0
        wait_s = self._guard.observe(now_s, tokens, float(engine.journal.count.generated_tokens))
        wait_s = wait_s if wait_s >= LEAST_S else 0.0
        if abs(wait_s - self._terms.wait_s) <= MOVED * self._terms.wait_s:
            return
        self._terms = Terms.of(
            self._spec,
            mean_initial=float(self._means[self._known - 1]),
            mean_prompt=float(self._mean_prompts[self._known - 1]),
            wait_s=wait_s,
            token_s=engine.last_step_ticks / TICKS_PER_S,
        )
        if queued:
            self._rank_again()

    def _hear(self) -> None:
        """The board has rows of further requests."""
        while self._news and self._news[0][0] <= self._engine.clock:
            _, self._told = self._news.popleft()
        if len(self._waiting):
            self._rank_again()

    def _rank_again(self) -> None:
        self._waiting.rank_again(*self._rank_waiting(np.array(self._waiting.requests, np.int64)))

    def _insert(self, requests: "range | list[int] | tuple[int, ...]") -> None:
        """Put requests into the waiting queue."""
        ids = np.array(requests, np.int64)
        size, effective = self._rank_waiting(ids)
        left = self._rows.left(ids, self._ages(ids))
        for request, own, rank, tokens in zip(
            ids.tolist(), size.tolist(), effective.tolist(), left.tolist(), strict=True
        ):
            self._waiting.add(request, rank, own)
            self._left[request] = tokens
            self._queued_tokens += tokens

    def _ages(self, ids: Ints) -> Ints:
        age = self._engine.age
        return np.array([age[r] for r in ids.tolist()], np.int64)

    def _rank_waiting(self, ids: Ints) -> tuple[Floats, Floats]:
        """Sizes and effective ranks `[n]` of requests that wait."""
        engine, terms = self._engine, self._terms
        age = self._ages(ids)
        size, cutoff = self._shown(ids, age, age)
        known = engine.work.prompt_tokens[ids] + age
        rank = self._ranks(ids, size, known)
        if not terms.preempt:
            return size, rank
        started = np.array([engine.journal.started[r] >= 0 for r in ids.tolist()], np.bool_)
        protected = decide.is_protected(started, age, cutoff)
        return size, decide.effective_rank(rank, protected)

    def _shown(self, ids: Ints, age: Ints, shown_age: Ints) -> tuple[Floats, NDArray[np.uint32]]:
        """Sizes `[n]` at `age` and cut-off ages by the board of `shown_age`, else by the mean."""
        size, cutoff = self._rows.size(ids, age, shown_age), self._rows.cutoff[ids]
        if self._told < self._known:
            unknown = ids >= self._told
            mean = self._unknown_size[ids]
            size = np.where(unknown, np.maximum(mean - age, 0.0), size)
            cutoff = np.where(unknown, cutoff_age(self._terms.c, mean), cutoff)
        return size, cutoff

    def _ranks(self, ids: Ints, size: Floats, uncomputed: Ints) -> Floats:
        return ranks(
            self._terms,
            size=size,
            arrival_s=self._arrival_s[ids],
            deadline_s=_NO_DEADLINE,
            priority=_NO_PRIORITY,
            uncomputed_tokens=uncomputed,
        )

    def _rank_running(self) -> _Running:
        engine, terms = self._engine, self._terms
        ids = np.array(engine.running, np.int64)
        age = engine.clock - engine.base[ids]
        lag = engine.config.prediction_lag
        shown = np.maximum(age - lag, engine.resumed_age[ids]) if lag else age
        size, cutoff = self._shown(ids, age, shown)
        rank = size
        if terms.boost:
            uncomputed = np.ones(len(ids), np.int64)
            if engine.prefilling:
                for place, request in enumerate(engine.running):
                    if request in engine.prefilling:
                        uncomputed[place] = (
                            engine.prompt[request] + engine.age[request] - engine.prefilling[request]
                        )
            rank = self._ranks(ids, size, uncomputed)
        protected = decide.is_protected(
            np.ones(len(ids), np.bool_),
            age,
            cutoff,
            engine.gave_way[ids],
            terms.max_preemptions,
        )
        self._all_protected = bool(protected.all())
        return _Running(ids, size, rank, protected, decide.effective_rank(rank, protected))

    def _sort_running(self, running: _Running) -> None:
        order = decide.serving_order(running.effective, running.requests)
        if (order[1:] < order[:-1]).any():
            running.keep(order)
            self._engine.running[:] = running.requests.tolist()

    def _preempt_for_slots(self, running: _Running) -> None:
        engine, waiting, terms = self._engine, self._waiting, self._terms
        free = max(engine.config.slots - engine.present(), 0)
        if free >= len(waiting):
            return
        if not running.effective.max() > waiting.effective[free]:
            self._note_denied(free, running)
            return
        could = free + len(running.requests)
        swaps = decide.slot_swaps(
            np.array(waiting.effective[:could]),
            running.effective,
            running.protected,
            running.requests,
            free,
            waiting_size=np.array(waiting.size[:could]),
            running_size=running.size,
            ratio=terms.preempt_ratio,
        )
        room = engine.blocks.free
        victims: list[int] = []
        for victim, newcomer in swaps:
            gives, takes = int(running.requests[victim]), waiting.requests[newcomer]
            room += engine.held_blocks(gives) - engine.need_blocks(takes)
            if room < 0:
                break
            victims.append(victim)
        self._preempt(victims, running)

    def _preempt_for_memory(self, running: _Running) -> None:
        engine, waiting, terms = self._engine, self._waiting, self._terms
        size = engine.config.block_tokens
        head = waiting.requests[0]
        if head != self._stuck or engine.present() >= engine.config.slots:
            return
        need, free = engine.need_blocks(head), engine.blocks.free
        if need <= free:
            return
        victims = decide.memory_victims(
            float(need * size),
            float(free * size),
            newcomer=waiting.effective[0],
            running=running.effective,
            running_protected=running.protected,
            held_tokens=np.array([engine.held_blocks(int(r)) * size for r in running.requests], np.float64),
            most=MAX_MEMORY_VICTIMS,
            newcomer_size=waiting.size[0],
            running_size=running.size,
            ratio=terms.preempt_ratio,
        )
        if victims:
            self._preempt(victims, running)
        else:
            self._note_denied(0, running)

    def _preempt(self, victims: list[int], running: _Running) -> None:
        """Preempt the running requests at `victims`, and hold them back for this step."""
        if not victims:
            return
        for request in running.requests[victims].tolist():
            self._engine.preempt(request)
            self._held.append(request)
        running.keep(np.delete(np.arange(len(running.requests)), victims))

    def _note_denied(self, newcomer: int, running: _Running) -> None:
        """Count a waiting request, once, that only the protection of a longer one keeps waiting."""
        waiting = self._waiting
        request = waiting.requests[newcomer]
        if request not in self._denied and decide.was_denied(
            waiting.effective[newcomer],
            running.rank,
            running.protected,
            newcomer_size=waiting.size[newcomer],
            running_size=running.size,
            ratio=self._terms.preempt_ratio,
        ):
            self._denied.add(request)
            self._engine.journal.count.denied += 1
