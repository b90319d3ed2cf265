"""Which positions a step exports, against a slow reference that replays random schedules token by token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trail.engine.export.batch import Batch
from trail.engine.export.tracker import Tracker
from trail.wire.frames import Kind
from trail.wire.keys import request_key


def batch(rows: list[tuple[str, int, int]]) -> Batch:
    """`rows` are (request, tokens computed before, tokens in this step)."""
    lengths = [scheduled for _, _, scheduled in rows]
    return Batch(
        req_ids=[name for name, _, _ in rows],
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        computed=np.array([computed for _, computed, _ in rows], np.int32),
    )


def exported(tracker: Tracker, rows: list[tuple[str, int, int]]) -> list[tuple[int, Kind, int, int]]:
    """(key, kind, position, pooled) of one step."""
    plan = tracker.plan(batch(rows))
    found = [] if plan is None else plan.rows
    return sorted((int(r["key"]), Kind(r["kind"]), int(r["position"]), int(r["pooled"])) for r in found)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[dict[str, int], list[list[tuple[str, int, int]]]]:
    """Prompt lengths and a schedule with chunks, prefix-cache hits, preemptions and changing batch order."""
    prompts = {f"r{i}": draw(st.integers(1, 12)) for i in range(draw(st.integers(1, 4)))}
    computed = dict.fromkeys(prompts, 0)
    known = dict(prompts)  # tokens that exist: the prompt, then one more after each completed step
    steps = []
    for _ in range(draw(st.integers(1, 25))):
        rows = []
        for name in draw(st.permutations(sorted(prompts))):
            action = draw(st.sampled_from(["run", "run", "run", "skip", "preempt"]))
            if action == "preempt":
                computed[name] = draw(st.integers(0, computed[name])) // 4 * 4
            if action != "run":
                continue
            if computed[name] == 0 and draw(st.booleans()):
                computed[name] = draw(st.integers(0, known[name] - 1)) // 4 * 4  # blocks found in the cache
            scheduled = draw(st.integers(1, known[name] - computed[name]))
            rows.append((name, computed[name], scheduled))
            computed[name] += scheduled
            known[name] += computed[name] == known[name]
        if rows:
            steps.append(rows)
    return prompts, steps


@given(schedules(), st.integers(1, 3))
def test_rows_are_those_of_a_token_by_token_replay(
    schedule: tuple[dict[str, int], list[list[tuple[str, int, int]]]], every: int
) -> None:
    prompts, steps = schedule
    tracker = Tracker(every)
    for name, tokens in prompts.items():
        tracker.admit(name, tokens)
    seen: dict[str, set[int]] = {name: set() for name in prompts}
    newest = dict.fromkeys(prompts, 0)
    done: set[str] = set()
    for rows in steps:
        expected = []
        for name, computed, scheduled in rows:
            tokens, end = prompts[name], computed + scheduled
            if name not in done:
                # The running sum takes a chunk only where it continues what was summed.
                if computed <= len(seen[name]):
                    seen[name] |= set(range(computed, min(end, tokens)))
                if end == tokens:
                    done.add(name)
                    pooled = tokens if len(seen[name]) == tokens else 1
                    expected.append((request_key(name), Kind.PROMPT, tokens, pooled))
            if end > tokens and end > newest[name] and (end - tokens) % every == 0:
                newest[name] = end
                expected.append((request_key(name), Kind.TOKEN, end, 1))
        assert exported(tracker, rows) == sorted(expected)


@given(schedules())
def test_summed_spans_cover_each_prompt_token_of_a_mean_once(
    schedule: tuple[dict[str, int], list[list[tuple[str, int, int]]]],
) -> None:
    prompts, steps = schedule
    tracker = Tracker()
    for name, tokens in prompts.items():
        tracker.admit(name, tokens)
    summed: dict[int, list[int]] = {request_key(name): [] for name in prompts}
    for rows in steps:
        # Position of each hidden state of the step, in the order of the batch.
        positions = [p for _, computed, scheduled in rows for p in range(computed, computed + scheduled)]
        plan = tracker.plan(batch(rows))
        if plan is None:
            continue
        for span in plan.spans:
            summed[span.request.key] += positions[span.start : span.stop]
        for request in plan.pooled:
            assert sorted(summed[request.key]) == list(range(request.prompt_tokens))
        for row, index in zip(plan.rows, plan.token_index, strict=False):
            assert positions[index] + 1 == row["position"]


def test_a_request_that_was_never_announced_gives_no_row() -> None:
    assert exported(Tracker(), [("stranger", 0, 7), ("stranger2", 40, 1)]) == []


def test_an_ended_request_is_forgotten_and_its_name_can_come_again() -> None:
    tracker = Tracker()
    tracker.admit("a", 3)
    assert exported(tracker, [("a", 0, 3)]) == [(request_key("a"), Kind.PROMPT, 3, 3)]
    tracker.forget({"a"})
    assert len(tracker) == 0
    tracker.admit("a", 2)
    assert exported(tracker, [("a", 0, 2)]) == [(request_key("a"), Kind.PROMPT, 2, 2)]


def test_a_request_announced_again_keeps_what_was_summed() -> None:
    """The V2 runner announces a resumed request among the first-time ones."""
    tracker = Tracker()
    tracker.admit("a", 6)
    assert exported(tracker, [("a", 0, 4)]) == []
    tracker.admit("a", 6)
    assert exported(tracker, [("a", 4, 2)]) == [(request_key("a"), Kind.PROMPT, 6, 6)]


@given(schedules())
def test_without_tokens_a_step_exports_its_prompts_alone_and_counts_the_open_ones(
    schedule: tuple[dict[str, int], list[list[tuple[str, int, int]]]],
) -> None:
    prompts, steps = schedule
    every_step, prompts_only = Tracker(), Tracker()
    for name, tokens in prompts.items():
        every_step.admit(name, tokens)
        prompts_only.admit(name, tokens)
    done = set()
    for rows in steps:
        expected = [row for row in exported(every_step, rows) if row[1] == Kind.PROMPT]
        plan = prompts_only.plan(batch(rows), tokens=False)
        found = [] if plan is None else plan.rows
        assert sorted(int(r["key"]) for r in found) == sorted(row[0] for row in expected)
        done |= {row[0] for row in expected}
        assert prompts_only.open_prompts == len(prompts) - len(done)
    for name in prompts:
        prompts_only.forget({name})
    assert prompts_only.open_prompts == 0
