"""Any history of events and frames puts on the board what a slow, per-request reading of the paper does."""

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_kit import BINS, Bench, rows, started, vector

from trail.policy.mlfq import level
from trail.policy.spec import POLICY_NAMES, PolicySpec
from trail.wire.frames import Kind
from trail.wire.lifecycle import Finished, Started

PRIOR = 30.0
K = BINS.k
MIDPOINTS = [8.0, 24.0, 40.0, 56.0]
WIDTH = 16.0


def down_one_token(q: list[float]) -> list[float]:
    """T of the paper: a bin is kept with 1 - 1/w and left downwards with 1/w; bin 0 absorbs."""
    moved = [0.0] * K
    for i, mass in enumerate(q):
        leave = 1 / WIDTH if i > 0 else 0.0
        moved[i] += mass * (1 - leave)
        if i > 0:
            moved[i - 1] += mass * leave
    return moved


@dataclass
class SlowRequest:
    slot: int
    prompt: int
    limit: int
    exact: int
    seen: int = -1
    initial: float = 0.0
    source: int = 0
    q: list[float] | None = None
    remaining: float = 0.0
    age: int = 0


@dataclass
class SlowSidecar:
    """One request at a time, one token at a time."""

    open: dict[int, SlowRequest] = field(default_factory=dict)
    initials: list[float] = field(default_factory=list)
    board: dict[int, tuple[int, SlowRequest] | None] = field(default_factory=dict)

    def start(self, event: Started) -> None:
        if event.key in self.open and self.open[event.key].slot == event.slot:
            return
        self.open.pop(event.key, None)
        for key, request in list(self.open.items()):
            if request.slot == event.slot:
                del self.open[key]
        request = SlowRequest(
            event.slot, len(event.prompt_token_ids), event.max_tokens, event.exact_output_tokens
        )
        if event.age:
            request.seen = event.age - 1
        if event.initial_prediction > 0:
            self.set_initial(request, event.initial_prediction, 3)
        self.open[event.key] = request

    def set_initial(self, request: SlowRequest, tokens: float, source: int) -> None:
        if request.limit:
            tokens = min(tokens, request.limit)
        if request.source:
            self.initials.remove(request.initial)
        self.initials.append(tokens)
        request.initial, request.source = tokens, source
        if request.q is None:
            request.remaining = tokens

    def row(self, key: int, position: int, kind: Kind, answer: list[float]) -> None:
        request = self.open.get(key)
        if request is None:
            return
        age = position - request.prompt
        if kind == Kind.PROMPT and age != 0:
            return
        if kind == Kind.TOKEN and (age < 1 or (request.limit and age > request.limit)):
            return
        if age <= request.seen:
            return
        if request.q is None:
            request.q = list(answer)
        else:
            prior = request.q
            for _ in range(age - request.seen):
                prior = down_one_token(prior)
            joint = [a * b for a, b in zip(prior, answer, strict=True)]
            request.q = [v / sum(joint) for v in joint] if sum(joint) > 0 else list(answer)
        request.seen = request.age = age
        request.remaining = sum(a * b for a, b in zip(request.q, MIDPOINTS, strict=True))
        if request.limit:
            request.remaining = min(request.remaining, request.limit - age)
        if not request.source:
            self.set_initial(request, request.remaining + age, 1)

    @property
    def mean(self) -> float:
        return sum(self.initials) / len(self.initials) if self.initials else PRIOR


def slow_rank(spec: PolicySpec, request: SlowRequest) -> tuple[float, float, int]:
    r, never = request.initial, 2**32 - 1
    length = request.exact or r
    return {
        "fcfs": (0.0, 0.0, never),
        "sjf": (r, 0.0, never),
        "trail-prompt": (max(r - request.age, 0.0), 1.0, math.floor(spec.c * r)),
        "trail": (request.remaining, 1.0, math.floor(spec.c * r)),
        "oracle": (max(length - request.age, 0.0), 1.0, math.floor(spec.c * length)),
        "mlfq": (float(level([request.prompt], [request.age])[0]), 0.0, never),
        "adaptive": (request.remaining, 1.0, math.floor(spec.c * r)),
    }[spec.name]


keys = st.integers(1, 5)
slots = st.integers(0, 3)
answers = st.lists(st.sampled_from([0.05, 0.2, 0.5, 1.0]), min_size=K, max_size=K)
start_events = st.builds(
    lambda key, slot, prompt, limit, exact, resent: started(
        key, slot, prompt, max_tokens=limit, exact_output_tokens=exact, age=resent[0],
        initial_prediction=resent[1],
    ),
    keys, slots, st.integers(1, 3), st.sampled_from([0, 12]), st.sampled_from([0, 9]),
    st.sampled_from([(0, 0.0), (0, 0.0), (4, 20.0), (4, 0.0)]),
)  # fmt: skip
row_items = st.tuples(keys, st.integers(1, 20), st.sampled_from(list(Kind)), answers)
actions = st.one_of(
    start_events.map(lambda event: ("start", event)),
    keys.map(lambda key: ("finish", key)),
    st.tuples(keys, st.floats(1, 60)).map(lambda job: ("prompt", job)),
    st.tuples(st.sampled_from(POLICY_NAMES), st.sampled_from([0.0, 0.5, 1.0])).map(
        lambda policy: ("policy", PolicySpec(*policy))
    ),
    st.lists(row_items, min_size=1, max_size=6).map(lambda items: ("frame", items)),
)


def play(bench: Bench, slow: SlowSidecar, action: tuple[str, Any]) -> None:
    kind, what = action
    if kind == "start":
        bench.apply(what)
        slow.start(what)
    elif kind == "finish":
        bench.apply(Finished(key=what, slot=0, output_tokens=7))
        slow.open.pop(what, None)
    elif kind == "prompt":
        bench.pipeline.tracker.set_prompt_prediction(*what)
        request = slow.open.get(what[0])
        if request is not None and request.source < 2:
            slow.set_initial(request, what[1], 2)
    elif kind == "policy":
        bench.policy.set(what)
    else:
        # Only rows of known requests: waiting rows have tests of their own.
        known = [item for item in what if item[0] in slow.open]
        if known:
            batch = rows(*((key, position, k, vector(*answer)) for key, position, k, answer in known))
            bench.steps += 1
            bench.writer.write(bench.steps, batch.rows, batch.vectors)
        # Prompts first, then of every request the token with the largest age that is possible for it.
        for wanted in (Kind.PROMPT, Kind.TOKEN):
            best: dict[int, tuple[int, list[float]]] = {}
            for key, position, k, answer in known:
                request = slow.open[key]
                age = position - request.prompt
                possible = (
                    age == 0 if k == Kind.PROMPT else age >= 1 and (not request.limit or age <= request.limit)
                )
                if k == wanted and possible and (key not in best or position >= best[key][0]):
                    best[key] = (position, answer)
            for key, (position, answer) in best.items():
                total = sum(answer)
                slow.row(key, position, wanted, [v / total for v in answer])


@settings(max_examples=150, deadline=None)
@given(st.lists(actions, min_size=1, max_size=25), st.booleans())
def test_board_is_that_of_the_slow_reference(history: list[tuple[str, Any]], every_action: bool) -> None:
    assert list(BINS.midpoints) == MIDPOINTS
    with tempfile.TemporaryDirectory() as directory:
        bench, slow = Bench(Path(directory)), SlowSidecar()
        bench.pipeline.step()
        try:
            for action in history:
                play(bench, slow, action)
                if every_action or action[0] == "frame":
                    bench.pipeline.step()
            bench.pipeline.step()
            spec, generation = bench.policy.current
            header = bench.header()
            assert (header.generation, header.c, header.order) == (generation, spec.c, spec.name != "fcfs")
            assert header.preempt == (spec.name not in ("fcfs", "sjf"))
            assert header.boost == (spec.name == "adaptive")
            # Whoever is not known yet is in mlfq's first queue.
            assert header.mean_initial == pytest.approx(0.0 if spec.name == "mlfq" else slow.mean)
            by_slot = {request.slot: (key, request) for key, request in slow.open.items()}
            for slot, row in enumerate(bench.board(*range(4))):
                key, request = by_slot.get(slot, (0, None))
                known = request is not None and (
                    request.source or (spec.name == "oracle" and request.exact) or spec.name == "mlfq"
                )
                if not known:
                    assert row["key"] == 0
                    continue
                rank, slope, cutoff = slow_rank(spec, request)
                assert (row["key"], row["slope"], row["age"]) == (key, slope, request.age)
                assert row["rank"] == pytest.approx(rank, rel=1e-5)
                assert row["initial"] == pytest.approx(request.initial, rel=1e-5)
                assert row["remaining"] == pytest.approx(request.remaining, rel=1e-5)
                assert abs(int(row["cutoff"]) - cutoff) <= (
                    abs(spec.c * request.initial - round(spec.c * request.initial)) < 1e-6
                )
        finally:
            bench.close()
