"""A simulated scheduler whose c the controller sets while it runs."""

import math
from collections.abc import Callable
from dataclasses import replace

from trail.policy.controller import Objective, Pressure, decide, initial_state
from trail.policy.sizes import cutoff_age
from trail.policy.spec import PolicySpec
from trail.sidecar.redis.step_cost import StepCost, full_batch
from trail.simulation.engine.engine import Engine
from trail.simulation.engine.order import Quiet
from trail.simulation.engine.predictors import Predictions
from trail.simulation.engine.ranked import RankedOrder
from trail.simulation.engine.steptime import TICKS_PER_S

INTERVAL_S = 2.0
"""Between two decisions, as the operator's loop has it; a decision acts one interval later."""
SAMPLE_S = 0.2
"""Between two looks at what steps cost, as the sidecar's link has it."""
_SAMPLE = round(SAMPLE_S * TICKS_PER_S)
_INTERVAL = round(INTERVAL_S * TICKS_PER_S)
_QUIET_DECISIONS = 30
_RECENT = 200
"""Requests over which mean prompt and prediction are taken; a sidecar takes those that are open."""


class Meter:
    """Pressure of a simulated engine, from what a sidecar could see of it."""

    def __init__(self, engine: Engine, predictions: Predictions) -> None:
        self._engine = engine
        self._initial = predictions.initial
        self._cost = StepCost()
        self._reported = self._sampled = self._totals()
        self.arrived = 0
        self.rested = False
        """Whether the engine had nothing to do for a while since the last sample."""

    def sample(self) -> None:
        """What the steps since the last sample cost."""
        now = self._totals()
        passed_s, steps, computed, generated, *_ = (a - b for a, b in zip(now, self._sampled, strict=True))
        self._sampled = now
        if not self.rested:
            prefill = int(max(computed - generated, 0))
            self._cost.add(passed_s, int(steps), prefill, int(generated))
        self.rested = False

    def read(self, waiting: int) -> Pressure:
        """What happened since the last reading."""
        self.sample()
        engine = self._engine
        now, before = self._sampled, self._reported
        passed_s, _, _, generated, recomputed, preemptions = (a - b for a, b in zip(now, before, strict=True))
        self._reported = now
        recent = slice(max(self.arrived - _RECENT, 0), self.arrived)
        passed_s = max(passed_s, 1e-9)
        prompts = engine.prompt[recent]
        prompt = sum(prompts) / len(prompts) if prompts else math.nan
        answer = float(self._initial[recent].mean()) if prompts else math.nan
        kv_tokens = float(engine.capacity_blocks * engine.config.block_tokens)
        return Pressure(
            interval_s=passed_s,
            waiting=float(waiting),
            running=float(len(engine.running)),
            usage=1.0 - engine.blocks.free / engine.capacity_blocks,
            free_blocks=float(engine.blocks.free),
            generated_s=generated / passed_s,
            recomputed_s=recomputed / passed_s,
            preemptions_s=preemptions / passed_s,
            recompute_cost=self._cost.recompute_cost(
                full_batch(engine.config.slots, kv_tokens, prompt, answer)
            ),
            prompt_tokens=prompt,
            answer_tokens=answer,
            prefix_cache=float(engine.config.prefix_cache),
            short_wait_s=math.nan,
            gap_s=math.nan,
        )

    def _totals(self) -> tuple[float, ...]:
        count = self._engine.journal.count
        return (
            self._engine.now / TICKS_PER_S,
            count.steps,
            count.computed_tokens,
            count.generated_tokens,
            count.recomputed_tokens,
            count.policy_preemptions + count.memory_preemptions,
        )


Control = Callable[[Pressure], float]
"""From the pressure of an interval to the c that is to act from the next one on."""


class ControlledOrder(RankedOrder):
    """The scheduler of `spec`, whose c comes from `control` every INTERVAL_S. `spec` holds the first one."""

    def __init__(self, spec: PolicySpec, engine: Engine, predictions: Predictions, control: Control) -> None:
        super().__init__(spec, engine, predictions)
        self._predicted = predictions.initial
        self._meter = Meter(engine, predictions)
        self._control = control
        self._decided = spec.c
        self._decide_at = _INTERVAL
        self._sample_at = _SAMPLE

    def arrive(self, begin: int, end: int) -> None:
        if not self._engine.running and not len(self):
            self._meter.rested = True
        self._meter.arrived = end
        super().arrive(begin, end)

    def before(self) -> None:
        now = self._engine.now
        if now >= self._sample_at:
            self._meter.sample()
            self._sample_at = now - now % _SAMPLE + _SAMPLE
        if now >= self._decide_at:
            self._turn()
        super().before()

    def quiet(self) -> Quiet:
        quiet = super().quiet()
        until = self._sample_at if quiet.until is None else min(quiet.until, self._sample_at)
        return replace(quiet, until=until)

    def _turn(self) -> None:
        missed = (self._engine.now - self._decide_at) // _INTERVAL
        self._decide_at += (missed + 1) * _INTERVAL
        self._set_c(self._decided)
        pressure = self._meter.read(len(self))
        for _ in range(min(missed, _QUIET_DECISIONS) + 1):
            self._decided = self._control(pressure)

    def _set_c(self, c: float) -> None:
        if c == self._terms.c:
            return
        self._rows = replace(self._rows, cutoff=cutoff_age(c, self._predicted))
        self._terms = replace(self._terms, c=c)
        self._spec = replace(self._spec, c=c)
        if len(self._waiting):
            self._rank_again()


class LocalControl:
    """The controller itself as a `Control`, and the values of c it has given."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._state = initial_state(objective)
        self.given = [self._state.c]

    @property
    def c(self) -> float:
        """The c that was given last."""
        return self._state.c

    def __call__(self, pressure: Pressure) -> float:
        """The next c."""
        self._state = decide(pressure, self._state, self._objective).state
        self.given.append(self._state.c)
        return self._state.c
