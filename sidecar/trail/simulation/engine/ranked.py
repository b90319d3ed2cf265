"""TRAIL's order in the simulated engine: gathers ranks, and carries out what `trail.policy.step` plans."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from trail.policy.guard import Guard
from trail.policy.queue_estimate import LEAST_S, MOVED
from trail.policy.ranks import Terms
from trail.policy.spec import PolicySpec
from trail.policy.step import Plan, Ranked, Running, Waiting, plan_step, reach, scarce_tokens
from trail.sidecar.pacing import SHARED_CORES
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.order import ENDLESS, NOBODY, Quiet
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.rows import BoardRows, board_rows
from trail.simulation.engine.steptime import TICKS_PER_S
from trail.simulation.engine.waiting import RankedQueue
from trail.wire.changes import Cause

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
        work = engine.work
        self._arrival_s = np.asarray(work.arrival_s, np.float64)
        self._deadline_s = self._arrival_s + work.allowed_s
        counted = np.arange(1, len(work) + 1)
        # By how many the board has rows of.
        self._means = np.concatenate(([0.0], np.cumsum(predictions.initial) / counted))
        self._mean_prompts = np.concatenate(([0.0], np.cumsum(work.prompt_tokens) / counted))
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
            self._read_board()
        if self._spec.boosts:
            self._observe()
            terms = self._terms
        tight = self._tight()
        if not len(waiting) and not tight:
            return
        # With c = 0 whoever runs is protected: there is nothing to look for but whom that keeps waiting.
        may_give_way = terms.preempt and (tight or terms.c > 0 or not self._nobody_to_deny())
        running = np.array(engine.running if may_give_way else [], np.int64)
        plan = Plan()
        if may_give_way or terms.kv_reserve_tokens >= 0:
            room = engine.room()
            plan = plan_step(
                self._first(reach(room.free_slots, len(running), terms)),
                self._running(running),
                room,
                terms,
                tight=tight,
                stuck=len(waiting) > 0 and self._stuck == waiting.requests[0],
            )
        self.limit = self._carry_out(plan, running.tolist())

    def _first(self, count: int) -> Waiting:
        waiting, engine = self._waiting, self._engine
        requests = waiting.requests[:count]
        n = len(requests)
        known = np.array([engine.known_tokens(r) for r in requests], np.int64)
        return Waiting(
            effective=np.array(waiting.effective[:n], np.float64),
            size=np.array(waiting.size[:n], np.float64),
            need_tokens=engine.whole_blocks(known),
            ready=np.ones(n, np.bool_),
            fits_batch=np.ones(n, np.bool_),
        )

    def _carry_out(self, plan: Plan, running: list[int]) -> int:
        """Do what `plan` says about the `running` requests; how many may run in this step."""
        engine = self._engine
        if plan.order is not None:
            engine.running[:] = [running[i] for i in plan.order.tolist()]
        for newcomer, _, cause in plan.denials:
            request = self._waiting.requests[newcomer]
            if cause in (Cause.PROTECTED, Cause.LIMIT) and request not in self._denied:
                self._denied.add(request)
                engine.journal.count.denied += 1
        for victim, _, _ in plan.swaps:
            engine.preempt(running[victim])
            self._held.append(running[victim])
        return engine.config.slots if plan.admitted is None else engine.present() + plan.admitted

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
        scarce = scarce_tokens(config.token_budget, config.block_tokens, len(self._engine.running))
        return -(-scarce // config.block_tokens)

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
        self._state_terms(wait_s, engine.last_step_ticks / TICKS_PER_S)
        if queued:
            self._rank_again()

    def _state_terms(self, wait_s: float, token_s: float) -> None:
        self._terms = Terms.of(
            self._spec,
            mean_initial=float(self._means[self._told]),
            mean_prompt=float(self._mean_prompts[self._told]),
            wait_s=wait_s,
            token_s=token_s,
        )

    def _read_board(self) -> None:
        """The board has rows of further requests."""
        while self._news and self._news[0][0] <= self._engine.clock:
            _, self._told = self._news.popleft()
        self._state_terms(self._terms.wait_s, self._terms.token_s)
        if len(self._waiting):
            self._rank_again()

    def _rank_again(self) -> None:
        ranked = self._rank_waiting(np.array(self._waiting.requests, np.int64))
        self._waiting.rank_again(ranked.size, ranked.effective)

    def _insert(self, requests: "range | list[int] | tuple[int, ...]") -> None:
        """Put requests into the waiting queue."""
        ids = np.array(requests, np.int64)
        ranked = self._rank_waiting(ids)
        left = self._rows.left(ids, self._ages(ids))
        for request, own, rank, tokens in zip(
            ids.tolist(), ranked.size.tolist(), ranked.effective.tolist(), left.tolist(), strict=True
        ):
            self._waiting.add(request, rank, own)
            self._left[request] = tokens
            self._queued_tokens += tokens

    def _ages(self, ids: Ints) -> Ints:
        age = self._engine.age
        return np.array([age[r] for r in ids.tolist()], np.int64)

    def _rank_waiting(self, ids: Ints) -> Ranked:
        engine = self._engine
        age = self._ages(ids)
        started = np.array([engine.journal.started[r] >= 0 for r in ids.tolist()], np.bool_)
        known = engine.work.prompt_tokens[ids] + age
        return self._ranked(ids, age=age, shown_age=age, admitted=started, preemptions=None, uncomputed=known)

    def _running(self, ids: Ints) -> Running:
        """Those that run, in the engine's order, with what the board and the terms make of them."""
        engine, requests = self._engine, ids.tolist()
        age = engine.clock - engine.base[ids]
        lag = engine.config.prediction_lag
        shown = np.maximum(age - lag, engine.resumed_age[ids]) if lag else age
        computed = engine.work.prompt_tokens[ids] + age - 1
        uncomputed = np.ones(len(ids), np.int64)
        if engine.prefilling:
            for place, request in enumerate(requests):
                if request in engine.prefilling:
                    computed[place] = engine.prefilling[request]
                    uncomputed[place] = engine.known_tokens(request) - computed[place]
        admitted = np.ones(len(ids), np.bool_)
        ranked = self._ranked(
            ids,
            age=age,
            shown_age=shown,
            admitted=admitted,
            preemptions=engine.gave_way[ids],
            uncomputed=uncomputed,
        )
        if requests:
            self._all_protected = bool(ranked.protected.all())
        return Running(ranked, ids, engine.whole_blocks(computed), admitted)

    def _ranked(
        self,
        ids: Ints,
        *,
        age: Ints,
        shown_age: Ints,
        admitted: NDArray[np.bool_],
        preemptions: Ints | None,
        uncomputed: Ints,
    ) -> Ranked:
        """Ranks `[n]` at `age` by the board of `shown_age`."""
        return Ranked.of(
            self._terms,
            size=self._rows.size(ids, age, shown_age),
            cutoff=self._rows.cutoff[ids],
            known=ids < self._told,
            age=age,
            admitted=admitted,
            preemptions=preemptions,
            arrival_s=self._arrival_s[ids],
            deadline_s=self._deadline_s[ids],
            priority=self._engine.work.priority[ids],
            uncomputed_tokens=uncomputed,
        )
