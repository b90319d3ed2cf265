"""The engine's parts against slow, obvious ones."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Pool, Request

from trail.policy import decide
from trail.simulation.engine.blocks import FreeBlocks
from trail.simulation.engine.decoding import Decoding
from trail.simulation.engine.journal import LongestStep
from trail.simulation.engine.waiting import RankedQueue
from trail.simulation.run import earlier_starts_of_later

BLOCK = 4


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(8, 40), st.booleans())
def test_free_blocks_keep_what_a_pool_of_numbered_blocks_keeps(seed: int, size: int, keep: bool) -> None:
    rng = random.Random(seed)
    pool, blocks = Pool(size, keep), FreeBlocks(size, keep=keep)
    running: list[Request] = []
    gone: list[Request] = []
    for number in range(60):
        action = rng.choice(["start", "start", "resume", "preempt", "end"])
        if action == "start" and (free := len(pool.free)):
            tokens = rng.randint(1, free * BLOCK)
            request = Request(number, 0, tokens, 1, computed=tokens)
            request.blocks = [pool.take() for _ in range(-(-tokens // BLOCK))]
            blocks.take(len(request.blocks))
            running.append(request)
        elif action == "resume" and gone:
            request = gone.pop(rng.randrange(len(gone)))
            request.age = 1
            hits = pool.hits(request, BLOCK) if keep else []
            assert blocks.cached(request.number) == len(hits)
            for block in hits:
                pool.free.remove(block)
            assert blocks.take_back(request.number) == len(hits)
            request.blocks, request.computed = hits, len(hits) * BLOCK
            running.append(request)
        elif action in ("preempt", "end") and running:
            request = running.pop(rng.randrange(len(running)))
            full, part = divmod(request.computed, BLOCK)
            pool.give(request, BLOCK)
            if action == "preempt":
                blocks.release(full, 1 if part else 0, request.number)
                gone.append(request)
            else:
                blocks.release(full, 1 if part else 0)
        assert blocks.free == len(pool.free)


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(1, 30), st.integers(2, 30), st.integers(0, 20)), min_size=1, max_size=8),
)
def test_sums_over_decoding_requests(size: int, requests: list[tuple[int, int, int]]) -> None:
    decoding, clock = Decoding(size), 20
    ages = {i: 1 + age % (output - 1) for i, (_, output, age) in enumerate(requests)}
    for i, (prompt, output, _) in enumerate(requests):
        decoding.add(i, clock - ages[i], clock, prompt, output)
    computed = {i: requests[i][0] + ages[i] - 1 for i in ages}
    assert decoding.context == sum(computed.values())
    assert decoding.next_end() == clock + min(requests[i][1] - ages[i] for i in ages)
    for steps in range(1, 3 * size):
        taken = sum(-(-(c + steps) // size) - -(-c // size) for c in computed.values())
        assert decoding.new_blocks(clock, steps) == taken
        assert decoding.steps_within(clock, taken) >= steps
        if taken:
            assert decoding.steps_within(clock, taken - 1) < steps
    first = decoding.next_end()
    ended = list(decoding.ending(first))
    assert sorted(ended) == [i for i in ages if clock + requests[i][1] - ages[i] == first]


@given(st.lists(st.integers(0, 9), max_size=30), st.data())
def test_the_longest_step_since_a_step(ticks: list[int], data: st.DataObject) -> None:
    longest = LongestStep()
    for clock, one in enumerate(ticks, 1):
        longest.add(clock, one)
    since = data.draw(st.integers(0, len(ticks)))
    assert longest.since(since) == max(ticks[since:], default=0)


RANKS = st.sampled_from([-np.inf, 0.0, 1.0, 1.5, 7.0])


@given(st.lists(st.tuples(RANKS, RANKS), max_size=25), st.randoms())
def test_the_waiting_queue_has_the_serving_order(
    ranks: list[tuple[float, float]], rng: random.Random
) -> None:
    queue = RankedQueue()
    requests = list(range(len(ranks)))
    rng.shuffle(requests)
    for request in requests:
        queue.add(request, ranks[request][0], float(request))
    arrival = np.arange(len(ranks))
    expected = decide.serving_order(np.array([a for a, _ in ranks]), arrival)
    assert queue.requests == expected.tolist()
    new_size = {r: float(r + 100) for r in queue.requests}
    queue.rank_again(
        np.array([new_size[r] for r in queue.requests]), np.array([ranks[r][1] for r in queue.requests])
    )
    expected = decide.serving_order(np.array([b for _, b in ranks]), arrival)
    assert queue.requests == expected.tolist()
    assert queue.size == [new_size[r] for r in queue.requests]
    assert queue.effective == [ranks[r][1] for r in queue.requests]


@given(st.permutations(list(range(20))), st.integers(0, 20))
def test_how_many_later_requests_started_earlier(places: list[int], n: int) -> None:
    started = np.argsort(np.argsort(places[:n])) if n else np.zeros(0, np.int64)
    expected = [sum(started[j] < started[i] for j in range(i + 1, n)) for i in range(n)]
    assert earlier_starts_of_later(started).tolist() == expected
