"""Decisions against slow references that follow the rules one request at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trail.policy import decide

RANK = st.integers(0, 12).map(float)  # few values, so that ties are common
RUNNING = st.lists(st.tuples(RANK, st.booleans(), st.integers(0, 5)), max_size=10)
WAITING = st.lists(st.one_of(RANK, st.just(float("-inf"))), max_size=12).map(sorted)


def arrays(running: list[tuple[float, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rank = np.array([row[0] for row in running], dtype=np.float64)
    protected = np.array([row[1] for row in running], dtype=bool)
    arrival = np.array([row[2] for row in running], dtype=np.int64)
    return rank, protected, arrival


@given(RUNNING)
def test_serving_order_is_protected_then_rank_then_arrival_then_as_given(
    running: list[tuple[float, bool, int]],
) -> None:
    rank, protected, arrival = arrays(running)
    order = decide.serving_order(decide.effective_rank(rank, protected), arrival).tolist()
    # Protected requests tie with one another: among them arrival decides alone.
    expected = sorted(
        range(len(running)),
        key=lambda i: (not running[i][1], 0.0 if running[i][1] else running[i][0], running[i][2], i),
    )
    assert order == expected


@given(st.integers(0, 20))
def test_equal_predictions_are_served_in_order_of_arrival(n: int) -> None:
    arrival = np.random.default_rng(n).permutation(n)
    order = decide.serving_order(np.full(n, 7.0), arrival)
    assert arrival[order].tolist() == list(range(n))


def test_a_rank_that_is_no_number_comes_last_and_leaves_the_others_in_order() -> None:
    ranks = np.array([np.nan, 5.0, -np.inf, np.nan, np.inf, 3.0])
    assert decide.serving_order(ranks, np.array([9, 1, 2, 3, 4, 5])).tolist() == [2, 5, 1, 4, 3, 0]


@given(
    st.lists(st.tuples(st.one_of(RANK, st.sampled_from([np.inf, -np.inf, np.nan])), st.integers(0, 5))),
    st.integers(0, 40),
)
def test_the_first_served_are_the_beginning_of_the_serving_order(
    requests: list[tuple[float, int]], most: int
) -> None:
    rank, arrival = (np.array([row[i] for row in requests]) for i in range(2))
    whole = decide.serving_order(rank, arrival)
    assert decide.serving_order(rank, arrival, most).tolist() == whole[:most].tolist()


@given(RUNNING, st.floats(0, 1))
def test_a_request_never_admitted_is_never_protected(
    running: list[tuple[float, bool, int]], c: float
) -> None:
    rank, admitted, arrival = arrays(running)
    cutoff = np.floor(c * rank).astype(np.uint32)
    protected = decide.is_protected(admitted, arrival, cutoff)
    for i in range(len(running)):
        assert protected[i] == (admitted[i] and arrival[i] >= int(c * rank[i]))
    assert not protected[~admitted].any()


@given(st.lists(st.tuples(RANK, st.booleans(), st.integers(0, 30), st.integers(0, 30)), max_size=10))
def test_ranks_count_down_to_zero(rows: list[tuple[float, bool, int, int]]) -> None:
    rank = np.array([row[0] for row in rows], dtype=np.float32)
    slope = np.array([float(row[1]) for row in rows], dtype=np.float32)
    row_age = np.array([row[2] for row in rows], dtype=np.uint32)
    age = np.array([row[3] for row in rows], dtype=np.int64)
    expected = [max(r - (a - ra if s else 0), 0.0) for r, s, ra, a in rows]
    assert decide.rank_now(rank, slope, row_age, age).tolist() == expected


def slow_swaps(
    waiting: list[float], running: list[tuple[float, bool, int]], free: int
) -> list[tuple[int, int]]:
    """Newcomers one by one, each looking for the worst preemptible request still running."""
    left = {i for i, (_, protected, _) in enumerate(running) if not protected}
    swaps = []
    for j in range(free, len(waiting)):
        if not left:
            break
        worst = max(left, key=lambda i: (running[i][0], running[i][2], i))
        if running[worst][0] <= waiting[j]:
            break
        left.remove(worst)
        swaps.append((worst, j))
    return swaps


@given(WAITING, RUNNING, st.integers(0, 3))
def test_slot_swaps_are_those_of_the_slow_reference(
    waiting: list[float], running: list[tuple[float, bool, int]], free: int
) -> None:
    rank, protected, arrival = arrays(running)
    swaps = decide.slot_swaps(np.array(waiting), rank, protected, arrival, free)
    assert swaps == slow_swaps(waiting, running, free)


@given(WAITING, RUNNING, st.integers(0, 3))
def test_a_swap_spares_the_protected_and_lets_nobody_give_way_twice(
    waiting: list[float], running: list[tuple[float, bool, int]], free: int
) -> None:
    rank, protected, arrival = arrays(running)
    swaps = decide.slot_swaps(np.array(waiting), rank, protected, arrival, free)
    victims = [victim for victim, _ in swaps]
    newcomers = [newcomer for _, newcomer in swaps]
    assert len(set(victims)) == len(victims)
    assert newcomers == list(range(free, free + len(swaps)))
    assert not protected[victims].any()
    assert all(rank[victim] > waiting[newcomer] for victim, newcomer in swaps)


@given(WAITING, RUNNING)
def test_with_c_zero_nothing_that_was_admitted_gives_way(
    waiting: list[float], running: list[tuple[float, bool, int]]
) -> None:
    rank, _, arrival = arrays(running)
    everyone = np.ones(len(running), dtype=bool)
    protected = decide.is_protected(everyone, arrival, np.zeros(len(running), dtype=np.uint32))
    assert decide.slot_swaps(np.array(waiting), rank, protected, arrival, 0) == []
    held = np.full(len(running), 100.0)
    assert not decide.memory_victims(
        50.0,
        0.0,
        newcomer=-1.0,
        running=rank,
        running_protected=protected,
        running_arrival=arrival,
        held_tokens=held,
        most=8,
    )


@given(RUNNING, RANK, st.integers(0, 200), st.integers(0, 200), st.integers(1, 4), st.data())
def test_memory_victims_make_room_or_nobody_gives_way(
    running: list[tuple[float, bool, int]],
    newcomer: float,
    need: int,
    free: int,
    most: int,
    data: st.DataObject,
) -> None:
    rank, protected, arrival = arrays(running)
    size = len(running)
    held = np.array(data.draw(st.lists(st.integers(0, 60), min_size=size, max_size=size)), dtype=np.float64)
    victims = decide.memory_victims(
        need,
        free,
        newcomer=newcomer,
        running=rank,
        running_protected=protected,
        running_arrival=arrival,
        held_tokens=held,
        most=most,
    )
    expected: list[int] = []
    left = [i for i in range(size) if rank[i] > newcomer and not protected[i]]
    while free + sum(held[expected]) < need and left and len(expected) < most:
        worst = max(left, key=lambda i: (rank[i], arrival[i], i))
        left.remove(worst)
        expected.append(worst)
    assert victims == (expected if free + sum(held[expected]) >= need else [])


SIZE = st.integers(0, 40).map(float)
SIZED_RUNNING = st.lists(st.tuples(RANK, st.booleans(), st.integers(0, 5), SIZE), max_size=10)
SIZED_WAITING = st.lists(
    st.tuples(st.one_of(RANK, st.just(float("-inf"))), SIZE), max_size=12
).map(lambda rows: sorted(rows, key=lambda row: row[0]))  # fmt: skip
RATIO = st.sampled_from([1.0, 2.0, 3.5])


def gives_way(victim: tuple[float, bool, int, float], newcomer: tuple[float, float], ratio: float) -> bool:
    """The rule: a larger rank, and so many times the size, which a protected newcomer does not ask for."""
    rank, protected, _, size = victim
    return not protected and rank > newcomer[0] and (np.isinf(newcomer[0]) or size >= ratio * newcomer[1])


@given(SIZED_WAITING, SIZED_RUNNING, st.integers(0, 3), RATIO)
def test_swaps_with_sizes_are_those_of_the_slow_reference(
    waiting: list[tuple[float, float]], running: list[tuple[float, bool, int, float]], free: int, ratio: float
) -> None:
    rank, protected, arrival = arrays([row[:3] for row in running])
    swaps = decide.slot_swaps(
        np.array([row[0] for row in waiting]),
        rank,
        protected,
        arrival,
        free,
        waiting_size=np.array([row[1] for row in waiting]),
        running_size=np.array([row[3] for row in running]),
        ratio=ratio,
    )
    left, expected = set(range(len(running))), []
    for j in range(free, len(waiting)):
        could = [i for i in left if gives_way(running[i], waiting[j], ratio)]
        if not could:
            break
        worst = max(could, key=lambda i: (running[i][0], running[i][2], i))
        left.remove(worst)
        expected.append((worst, j))
    assert swaps == expected


@given(SIZED_RUNNING, st.tuples(RANK, SIZE), st.integers(1, 200), RATIO)
def test_memory_is_taken_only_from_those_of_the_ratio(
    running: list[tuple[float, bool, int, float]], newcomer: tuple[float, float], need: int, ratio: float
) -> None:
    rank, protected, arrival = arrays([row[:3] for row in running])
    victims = decide.memory_victims(
        need,
        0.0,
        newcomer=newcomer[0],
        running=rank,
        running_protected=protected,
        running_arrival=arrival,
        held_tokens=np.full(len(running), 50.0),
        most=4,
        newcomer_size=newcomer[1],
        running_size=np.array([row[3] for row in running]),
        ratio=ratio,
    )
    could = [i for i in range(len(running)) if gives_way(running[i], newcomer, ratio)]
    wanted = -(-need // 50)
    assert len(victims) == (wanted if wanted <= min(len(could), 4) else 0)
    assert set(victims) <= set(could)
    assert all(rank[i] >= rank[j] for i in victims for j in set(could) - set(victims))


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 20), st.integers(0, 3)), max_size=10
    ),
    st.integers(-1, 3),
)
def test_a_request_that_gave_way_often_enough_is_protected_from_then_on(
    requests: list[tuple[bool, int, int, int]], most: int
) -> None:
    admitted, age, cutoff, preemptions = (np.array([row[i] for row in requests]) for i in range(4))
    protected = decide.is_protected(admitted.astype(bool), age, cutoff, preemptions, most)
    for (ran, a, until, gave), found in zip(requests, protected.tolist(), strict=True):
        assert found == (ran and (a >= until or 0 <= most <= gave))


@given(
    st.lists(st.integers(1, 300).map(float), max_size=12),
    st.integers(0, 800),
    st.integers(800, 1000),
    st.integers(0, 200),
    st.integers(0, 8),
)
def test_the_watermark_admits_as_the_slow_reference(
    needs: list[float], used: int, capacity: int, reserve: int, running: int
) -> None:
    expected, total = 0, float(used)
    for need in needs:
        if total + need > capacity - reserve * (running + expected):
            break
        total += need
        expected += 1
    if needs and running == 0:
        expected = max(expected, 1)
    assert decide.admission_limit(needs, used, capacity, reserve, running) == expected


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=12),
    st.integers(100, 400),
    st.integers(0, 60),
    st.data(),
)
def test_the_watermark_never_exceeds_capacity_and_always_progresses(
    needs: list[int], capacity: int, reserve: int, data: st.DataObject
) -> None:
    """A whole queue is served; every request fits alone, runs one round and leaves."""
    waiting, running = [float(need) for need in needs], list[float]()
    for _ in range(2 * len(needs) + 2):
        admitted = decide.admission_limit(waiting, sum(running), capacity, reserve, len(running))
        running += waiting[:admitted]
        waiting = waiting[admitted:]
        assert sum(running) <= capacity
        assert running or not waiting
        if running:
            running.pop(data.draw(st.integers(0, len(running) - 1)))
    assert not waiting


def test_a_negative_reserve_is_no_limit() -> None:
    assert decide.admission_limit([1e9, 1e9], 0, 10, -1.0, 3) == 2
