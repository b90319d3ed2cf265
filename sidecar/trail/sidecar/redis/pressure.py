"""KV pressure of the sidecar's engines, as it is told to the operator.

First tokens are heard of as they come. Everything else is read from what the loop keeps anyway, by sampling
and from another thread: such a time is as fine as the samples are close, and a value that the loop is just
changing may be a sample late.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from trail.sidecar.loop.pipeline import EnginePipeline
from trail.sidecar.loop.policy_box import PolicyBox
from trail.sidecar.redis.step_cost import StepCost, full_batch
from trail.sidecar.requests.timeline import Moment, RequestTimeline
from trail.wire.changes import Change
from trail.wire.redis_schema import PodReport

_MOST_BEGUN = 8192
"""First tokens between two samples, at most; the newest displace the oldest."""
_TOTALS = ("steps_total", "recomputed_tokens_total", "preemptions_total", "policy_preemptions_total")


class EngineMeter:
    """Totals of one engine core, counted from sample to sample; a `TimelineListener`."""

    def __init__(self, pipeline: EnginePipeline) -> None:
        self.pipeline = pipeline
        self.cost = StepCost()
        capacity = pipeline.tracker.capacity
        self._key = np.zeros(capacity, np.uint64)
        self._seen = np.zeros(capacity, np.int64)
        self._moved_s = np.zeros(capacity)
        self._load = pipeline.load
        self._generated = pipeline.tracker.generated_tokens
        self._sampled_s = math.nan
        self._begun: deque[RequestTimeline] = deque(maxlen=_MOST_BEGUN)
        self.clear()
        pipeline.timelines.listeners.append(self)

    def clear(self) -> None:
        """Begins a new report."""
        self.totals = dict.fromkeys(_TOTALS, 0)
        self.generated = 0
        self.waiting_s = self.running_s = 0.0
        self.gap_s = math.nan
        self.begun: list[RequestTimeline] = []  # those whose first token came

    def moment(self, timeline: RequestTimeline, moment: Moment) -> None:
        """Called by the loop; only first tokens count."""
        if moment.change == Change.FIRST_TOKEN:
            self._begun.append(timeline)

    def sample(self, now_s: float) -> None:
        """Counts what has happened since the sample before."""
        load, tracker = self.pipeline.load, self.pipeline.tracker
        begun = [self._begun.popleft() for _ in range(len(self._begun))]
        prefilled = sum(timeline.prompt_tokens for timeline in begun)
        self.begun += begun
        self._look_for_pauses(now_s)
        generated = tracker.generated_tokens
        made = max(generated - self._generated, 0)
        passed = {name: _grown(getattr(self._load, name), getattr(load, name)) for name in _TOTALS}
        if math.isfinite(self._sampled_s):
            elapsed_s = now_s - self._sampled_s
            self.waiting_s += load.waiting * elapsed_s
            self.running_s += load.running * elapsed_s
            if load.running and self._load.running:
                self.cost.add(
                    elapsed_s,
                    passed["steps_total"],
                    prefilled + passed["recomputed_tokens_total"],
                    made,
                )
        for name, count in passed.items():
            self.totals[name] += count
        self.generated += made
        self._load, self._generated, self._sampled_s = load, generated, now_s

    def _look_for_pauses(self, now_s: float) -> None:
        """Notes the longest time since a running request was last seen to go on."""
        key, seen = self.pipeline.tracker.key.copy(), self.pipeline.tracker.seen.copy()
        same = key == self._key
        running = same & (key != 0) & (self._seen > 0)
        if running.any():
            self.gap_s = float(np.fmax(self.gap_s, (now_s - self._moved_s[running]).max()))
        self._moved_s[~same | (seen != self._seen)] = now_s
        self._key, self._seen = key, seen


class PressureMeter:
    """The report of one pod: what `sample` has counted since the report before. Used by one thread."""

    def __init__(
        self,
        pipelines: Iterable[EnginePipeline],
        policy: PolicyBox,
        generation: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`generation` is that of the c in force, 0 where it is no operator's."""
        self._engines = [EngineMeter(pipeline) for pipeline in pipelines]
        self._policy = policy
        self._generation = generation
        self._clock = clock
        self._begun_s = clock()

    def sample(self) -> None:
        """Looks at every engine; to be called several times a report."""
        now_s = self._clock()
        for engine in self._engines:
            engine.sample(now_s)

    def report(self) -> PodReport:
        """What happened since the last report; begins the next."""
        self.sample()
        now_s = self._clock()
        elapsed_s = max(now_s - self._begun_s, 1e-3)
        engines = self._engines
        prompt, answer = _prompt_tokens(engines), _answer_tokens(engines)

        def rate(name: str) -> float:
            return sum(engine.totals[name] for engine in engines) / elapsed_s

        report = PodReport(
            interval_s=elapsed_s,
            waiting=sum(engine.waiting_s for engine in engines) / elapsed_s,
            running=sum(engine.running_s for engine in engines) / elapsed_s,
            usage=min(max((engine.pipeline.load.kv_usage for engine in engines), default=0.0), 1.0),
            free_blocks=_free_blocks(engines),
            generated_s=sum(engine.generated for engine in engines) / elapsed_s,
            recomputed_s=rate("recomputed_tokens_total"),
            preemptions_s=rate("preemptions_total"),
            policy_preemptions_s=rate("policy_preemptions_total"),
            recompute_cost=_median([_cost(engine, prompt, answer) for engine in engines]),
            prompt_tokens=prompt,
            answer_tokens=answer,
            prefix_cache=_prefix_cache(engines),
            short_wait_s=_short_wait([timeline for engine in engines for timeline in engine.begun]),
            gap_s=max((e.gap_s for e in engines if math.isfinite(e.gap_s)), default=math.nan),
            c=self._policy.current[0].c,
            generation=self._generation(),
            falling_back=sum(not engine.pipeline.ordering for engine in engines),
        )
        self._begun_s = now_s
        for engine in engines:
            engine.clear()
        return report


def _grown(before: int, now: int) -> int:
    """How much a total grew; one that fell began anew with its engine."""
    return now - before if now >= before else now


def _answer_tokens(engines: list[EngineMeter]) -> float:
    """The running mean of initial predictions, which all engines share."""
    mean = engines[0].pipeline.tracker.mean.value if engines else 0.0
    return mean if mean > 0 else math.nan


def _median(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan


def _cost(engine: EngineMeter, prompt_tokens: float, answer_tokens: float) -> float:
    hello = engine.pipeline.hello
    if hello is None:
        return math.nan
    kv_tokens = float(hello.kv_blocks * hello.block_size_tokens)
    return engine.cost.recompute_cost(full_batch(hello.max_running, kv_tokens, prompt_tokens, answer_tokens))


def _prefix_cache(engines: list[EngineMeter]) -> float:
    """1 where every engine that says so keeps blocks, 0 where one does not; NaN where none says."""
    said = [engine.pipeline.hello.prefix_caching for engine in engines if engine.pipeline.hello is not None]
    known = [value for value in said if value is not None]
    return float(all(known)) if known else math.nan


def _free_blocks(engines: list[EngineMeter]) -> float:
    known = [
        (1.0 - engine.pipeline.load.kv_usage) * engine.pipeline.hello.kv_blocks
        for engine in engines
        if engine.pipeline.hello is not None and engine.pipeline.hello.kv_blocks > 0
    ]
    return max(sum(known), 0.0) if known else math.nan


def _prompt_tokens(engines: list[EngineMeter]) -> float:
    prompts = [
        engine.pipeline.tracker.prompt_tokens[engine.pipeline.tracker.open_slots()] for engine in engines
    ]
    together = np.concatenate(prompts) if prompts else np.zeros(0)
    return float(together.mean()) if len(together) else math.nan


def _short_wait(begun: list[RequestTimeline]) -> float:
    """Mean time to first token of the shortest third by predicted length, in seconds."""
    waits = [(np.nan_to_num(one.initial), one.first_token_s) for one in begun]
    if not waits:
        return math.nan
    shortest = sorted(waits)[: math.ceil(len(waits) / 3)]
    return sum(wait_s for _, wait_s in shortest) / len(shortest)
