"""KV pressure read from the sidecar's state, and the cost of a prefill token from steps and time."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.policy.spec import PolicySpec
from trail.sidecar.history.timelines import Timelines
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.redis.pressure import PressureMeter
from trail.sidecar.redis.step_cost import StepCost, full_batch
from trail.sidecar.requests.tracker import RequestTracker, RunningMean
from trail.wire.changes import Change
from trail.wire.lifecycle import Changed, EngineSummary, Hello, Load, Started
from trail.wire.redis_schema import PodReport, decode_report, encode_report


@settings(deadline=None)
@given(
    st.floats(1e-3, 0.1),
    st.floats(0, 1e-3),
    st.integers(1, 64),
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.02),
)
def test_the_cost_of_a_prefill_token_is_recovered(
    step_s: float, token_s: float, batch: int, seed: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    cost = StepCost()
    output_s = step_s / 100
    for k in range(400):
        # Batches of all sizes, and more prefill where they are large, as in life.
        running = int(rng.integers(1, batch + 1)) if k % 2 else batch
        steps, prefill = int(rng.integers(5, 50)), int(rng.integers(0, 100 * running))
        output = running * steps
        seconds = step_s * steps + output_s * output + token_s * prefill
        cost.add(seconds * math.exp(noise * rng.standard_normal()), steps, prefill, output)
    true = token_s / (step_s / batch + output_s)
    # A whole stretch is off by `noise`; where prefill is cheap that is more than all its tokens take.
    assert cost.recompute_cost(batch) == pytest.approx(
        true, rel=0.1 + noise, abs=0.02 * batch * (noise > 0) + 1e-6
    )


@given(st.lists(st.tuples(st.floats(), st.integers(-5, 50), st.integers(0, 9999)), max_size=30))
def test_whatever_is_measured_a_cost_is_unknown_or_not_negative(
    stretches: list[tuple[float, int, int]],
) -> None:
    cost = StepCost()
    for seconds, steps, prefill in stretches:
        cost.add(seconds, steps, prefill, 10 * steps)
    value = cost.recompute_cost(16)
    assert math.isnan(value) or value >= 0


def test_steps_that_are_all_alike_say_nothing_of_prefill() -> None:
    cost = StepCost()
    for k in range(1, 100):
        cost.add(0.05 * k, k, 100 * k, 16 * k)
    assert math.isnan(cost.recompute_cost(16))


def test_a_quiet_time_does_not_make_recomputation_look_cheap() -> None:
    """An output token of a small batch is expensive; a burst's batch is what counts."""
    rng = np.random.default_rng(1)
    busy, quiet = StepCost(), StepCost()
    for cost, batch in ((busy, 64), (quiet, 2)):
        for _ in range(100):
            steps, prefill = int(rng.integers(5, 50)), int(rng.integers(0, 5000))
            cost.add(0.01 * steps + 1e-5 * prefill, steps, prefill, batch * steps)
    assert quiet.recompute_cost(64) == pytest.approx(busy.recompute_cost(64), rel=0.01)


@given(st.integers(1, 512), st.floats(0, 1e6), st.floats(1, 5000), st.floats(1, 5000))
def test_a_full_batch_is_what_slots_and_memory_allow(
    slots: int, kv: float, prompt: float, answer: float
) -> None:
    batch = full_batch(slots, kv, prompt, answer)
    assert 1 <= batch <= slots
    assert batch == slots or batch * (prompt + answer) == pytest.approx(max(kv, prompt + answer))
    assert full_batch(slots, 0.0, prompt, answer) == full_batch(slots, kv, math.nan, answer) == slots


class Pipeline:
    """What the meter reads of a pipeline."""

    def __init__(self) -> None:
        self.tracker = RequestTracker(64, 2, RunningMean(100.0))
        self.timelines = Timelines(0, self.tracker, lambda: 1)
        self.load = Load()
        self.hello = Hello(engine=0, kv_blocks=1000, max_running=8)
        self.ordering = True


class Scene:
    """A pipeline, its meter and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.pipeline, self.now_s = Pipeline(), 1.0
        pipelines: Any = [self.pipeline]
        self.meter = PressureMeter(
            pipelines, PolicyBox(PolicySpec("trail", c=0.4)), lambda: 7, lambda: self.now_s
        )
        self.meter.sample()

    def load(self, **changes: Any) -> None:
        self.pipeline.load = replace(self.pipeline.load, **changes)

    def passes(self, seconds: float, samples: int = 1) -> None:
        for _ in range(samples):
            self.now_s += seconds / samples
            self.meter.sample()

    def start(self, slot: int, prompt: int, predicted: float) -> None:
        queued = EngineSummary(queued_ns=int(self.now_s * 1e9))
        ids = tuple(range(prompt))
        self.pipeline.timelines.start(
            Started(slot + 1, str(slot), slot, ids, initial_prediction=predicted, summary=queued)
        )
        self.pipeline.timelines.find(str(slot))[-1].initial = predicted  # as the board would say

    def first_token(self, slot: int) -> None:
        now_ns = int(self.now_s * 1e9)
        self.pipeline.timelines.change(Changed(slot + 1, Change.FIRST_TOKEN, now_ns, 1))

    def see(self, slot: int, age: int) -> None:
        """A hidden state of age `age` has been used."""
        self.pipeline.tracker.seen[slot] = age


def test_rates_are_counted_from_totals_and_averages_over_time() -> None:
    scene = Scene()
    scene.load(waiting=4, running=8, kv_usage=0.25)
    scene.passes(1.0)
    scene.load(waiting=8, preemptions_total=6, policy_preemptions_total=4, recomputed_tokens_total=300)
    scene.passes(1.0)
    report = scene.meter.report()
    assert report.interval_s == pytest.approx(2.0)
    assert report.waiting == pytest.approx(6.0)
    assert report.running == pytest.approx(8.0)
    assert (report.preemptions_s, report.policy_preemptions_s, report.recomputed_s) == (3.0, 2.0, 150.0)
    assert (report.usage, report.free_blocks) == (0.25, 750.0)
    assert (report.c, report.generation, report.falling_back) == (0.4, 7, 0)
    assert scene.meter.report().preemptions_s == 0.0  # each is counted once


def test_an_engine_that_restarted_counts_from_nothing() -> None:
    scene = Scene()
    scene.load(preemptions_total=100)
    scene.passes(1.0)
    scene.meter.report()
    scene.load(preemptions_total=3)
    scene.passes(1.0)
    assert scene.meter.report().preemptions_s == pytest.approx(3.0)


def test_waits_of_the_shortest_third_and_the_longest_pause() -> None:
    scene = Scene()
    for slot, predicted in enumerate((10.0, 20.0, 300.0)):
        scene.start(slot, 50, predicted)
    scene.passes(0.0)
    scene.passes(1.0, 5)
    scene.see(0, 1)
    scene.passes(0.2)
    scene.first_token(0)
    scene.see(1, 1)
    scene.see(0, 5)
    scene.passes(1.0, 5)
    for slot in (1, 2):
        scene.first_token(slot)
    scene.see(0, 9)
    report = scene.meter.report()
    assert report.short_wait_s == pytest.approx(1.2)
    assert report.gap_s == pytest.approx(1.0, abs=0.21)
    assert report.prompt_tokens == 50.0
    assert report.answer_tokens == pytest.approx(scene.pipeline.tracker.mean.value)
    assert report.generated_s * report.interval_s == pytest.approx(9 + 1)


def test_requests_that_an_engine_sends_again_have_not_just_begun() -> None:
    scene = Scene()
    again = Started(1, "a", 0, (1, 2, 3), age=9, initial_prediction=50.0)
    scene.pipeline.timelines.start(again)
    scene.passes(2.0, 4)
    assert math.isnan(scene.meter.report().short_wait_s)


def test_what_is_not_known_is_said_to_be_unknown_and_can_be_sent() -> None:
    scene = Scene()
    scene.pipeline.hello = Hello(engine=0)
    scene.pipeline.tracker.mean = RunningMean(0.0)
    scene.passes(2.0)
    report = scene.meter.report()
    for name in (
        "recompute_cost",
        "prompt_tokens",
        "answer_tokens",
        "short_wait_s",
        "gap_s",
        "free_blocks",
        "prefix_cache",
    ):
        assert math.isnan(getattr(report, name)), name
    raw = {name.encode(): value.encode() for name, value in encode_report(report).items()}
    assert isinstance(decode_report(raw), PodReport)


@pytest.mark.parametrize(("stated", "told"), [(True, 1.0), (False, 0.0), (None, math.nan)])
def test_the_operator_is_told_whether_the_engine_caches_prefixes(stated: bool | None, told: float) -> None:
    scene = Scene()
    scene.pipeline.hello = replace(scene.pipeline.hello, prefix_caching=stated)
    scene.passes(2.0)
    raw = {name.encode(): value.encode() for name, value in encode_report(scene.meter.report()).items()}
    report = decode_report(raw)
    assert isinstance(report, PodReport)
    assert report.prefix_cache == pytest.approx(told, nan_ok=True)


def test_the_cost_comes_from_steps_prompts_and_time() -> None:
    """Steps of 10 ms, prefill tokens of 0.1 ms, eight slots always full."""
    scene = Scene()
    rng = np.random.default_rng(3)
    steps = 0
    for k in range(60):
        prompt = int(rng.integers(1, 400))
        scene.start(k, prompt, 100.0)
        scene.first_token(k)
        scene.see(k, 1)
        made = int(rng.integers(5, 30))
        steps += made
        scene.load(waiting=3, running=8, steps_total=steps)
        scene.pipeline.tracker.seen[0] += 8 * made
        scene.passes(0.01 * made + 1e-4 * prompt)
    cost = scene.meter.report().recompute_cost
    assert cost == pytest.approx(1e-4 * 8 / 0.01, rel=0.1)


def test_a_finished_request_does_not_count_as_a_pause() -> None:
    scene = Scene()
    scene.start(0, 10, 20.0)
    scene.see(0, 3)
    scene.passes(0.2)
    scene.pipeline.tracker.finish(1, output_tokens=4)
    scene.passes(5.0, 5)
    assert not scene.meter.report().gap_s > 0.3
