"""The decision log: what a line holds, what it must not hold, and that its troubles are its own."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_kit import Bench, ending, started, until, vector

from trail.policy.spec import PolicySpec
from trail.sidecar.history.decision_log import FIRST_STRIDE, KEPT, DecisionLog, request_record, thinned
from trail.sidecar.history.rotating import PARTS, RotatingFile, parts
from trail.sidecar.requests.predictions import PredictionHistories
from trail.sidecar.requests.timeline import RequestTimeline
from trail.wire.changes import Change
from trail.wire.frames import Kind
from trail.wire.lifecycle import Changed, Clocks, EngineSummary, Finished, Hello, Load

S = 10**9
SECRET = 31_337


def attach(bench: Bench, path: Path, limit: int = 1 << 20) -> DecisionLog:
    decisions = DecisionLog(path, limit, [bench.pipeline])
    bench.pipeline.timelines.listeners.append(decisions)
    return decisions


def serve_one(bench: Bench, key: int, slot: int, tokens: int) -> None:
    """A request from its arrival to its end, with a prediction at every age."""
    bench.apply(
        Clocks(0, 1_000_000 * S),
        started(key, slot, prompt_tokens=5, arrival_time_s=1_000_000.5, summary=EngineSummary(queued_ns=S)),
        Changed(key, Change.ADMITTED, 2 * S),
    )
    bench.pipeline.tracker.set_prompt_prediction(key, 40.0)
    bench.export((key, 5, Kind.PROMPT, vector(0, 0, 1, 0)))
    bench.pipeline.step()
    for age in range(1, tokens):
        bench.export((key, 5 + age, Kind.TOKEN, vector(0, 0, 1, 0)))
        bench.pipeline.step()
    summary = EngineSummary(S, 2 * S, 3 * S, 9 * S, S, memory_preemptions=1)
    bench.apply(Finished(key, slot, tokens, recomputed_tokens=6, summary=summary))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in parts(path) for line in part.read_text().splitlines()]


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in records(path) if record["kind"] == kind]


def test_a_line_tells_a_request_with_its_predictions(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "decisions.jsonl"
    bench.policy.set(PolicySpec("trail", 0.5))
    bench.apply(Hello(0, model="demo", max_running=16, kv_blocks=99, block_size_tokens=32,
                      hidden_size=8, layers=(2,)))  # fmt: skip
    decisions = attach(bench, path)
    serve_one(bench, 7, 3, 20)
    decisions.start()
    until(lambda: decisions.written == 1)
    decisions.close()
    assert records(path)[0]["kind"] == "log"
    (engine,) = of_kind(path, "engine")
    assert (engine["slots"], engine["kv_blocks"], engine["block_tokens"]) == (16, 99, 32)
    (line,) = of_kind(path, "request")
    assert (line["id"], line["policy"], line["prompt_tokens"], line["output_tokens"]) == (
        "r7",
        "trail-c0.5",
        5,
        20,
    )
    assert (line["arrival_s"], line["initial"], line["memory_preemptions"]) == (1_000_000.5, 40.0, 1)
    assert (line["queued_s"], line["first_token_s"], line["total_s"]) == (1.0, 2.5, 8.5)
    ages = [age for age, _ in line["refined"]]
    assert ages == [1, 5, 9, 13, 17]
    assert all(left > 0 for _, left in line["refined"])


def test_nothing_of_a_prompt_is_in_it(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    decisions = attach(bench, path)
    event = started(7, 3)
    bench.apply(
        Hello(0, hidden_size=8, layers=(2,)),
        type(event)(key=7, request_id="r7", slot=3, prompt_token_ids=(SECRET,) * 9),
    )
    bench.pipeline.step()
    bench.apply(Finished(7, 3, 4))
    decisions.start()
    until(lambda: decisions.written == 1)
    decisions.close()
    assert str(SECRET) not in path.read_text()


def test_predictions_are_thinned_evenly() -> None:
    ages = [age for age, _ in thinned((age, 5000.0 - age) for age in range(5000))]
    assert KEPT // 2 < len(ages) <= KEPT
    gaps = [b - a for a, b in pairwise(ages)]
    assert ages[0] == 1
    assert ages[-1] > 4900 - max(gaps)
    assert max(gaps) <= 2 * min(gaps)
    assert min(gaps) >= FIRST_STRIDE


def test_a_request_ranked_by_its_prompt_is_logged_as_it_was_ranked() -> None:
    histories = PredictionHistories(1, 2)
    for made, age in enumerate((0, 3, 9, 50)):
        at = np.array([age])
        histories.take(np.array([0]), np.array([made]), at, at + 7.0, np.ones((1, 2)))
    one = RequestTimeline(0, 5, 2, "r5", 10, arrival_s=1.0, initial=20.0)
    one.ending = ending(60, history=histories.of(0, 4))
    assert request_record(one)["refined"] == [[3, 7.0], [9, 7.0], [50, 7.0]]
    one.ending = replace(one.ending, by_prompt=True)
    assert request_record(one)["refined"] == [[3, 17.0], [9, 11.0], [50, 0.0]]


def test_a_slot_that_is_taken_again_begins_anew(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    bench.apply(Hello(0, hidden_size=8, layers=(2,)))
    decisions = attach(bench, path)
    serve_one(bench, 7, 3, 20)
    serve_one(bench, 8, 3, 6)
    decisions.start()
    until(lambda: decisions.written == 2)
    decisions.close()
    assert [[age for age, _ in r["refined"]] for r in of_kind(path, "request")] == [[1, 5, 9, 13, 17], [1, 5]]


def test_steps_are_told_every_second(bench: Bench, tmp_path: Path) -> None:
    decisions = DecisionLog(tmp_path / "x", 1 << 20, [bench.pipeline])
    bench.apply(Load(steps_total=100, running=3, waiting=2, kv_usage=0.5))
    assert list(decisions._loads(10.0)) == []
    bench.apply(Load(steps_total=150, running=4, waiting=1, kv_usage=0.25))
    assert list(decisions._loads(10.5)) == []
    (line,) = decisions._loads(11.0)
    assert (line["steps"], line["seconds"], line["running"], line["kv_usage"]) == (50, 1.0, 4, 0.25)
    assert list(decisions._loads(13.0)) == []


def test_all_parts_stay_within_the_limit_and_each_can_be_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = RotatingFile(path, 4000, lambda: ["head\n"])
    for number in range(1000):
        file.write(f"line {number}\n")
    file.close()
    found = parts(path)
    assert len(found) == PARTS
    assert sum(part.stat().st_size for part in found) <= 4000
    lines = [part.read_text().splitlines() for part in found]
    assert all(part[0] == "head" for part in lines)
    kept = [line for part in lines for line in part[1:]]
    assert kept == [f"line {number}" for number in range(1000 - len(kept), 1000)]


def test_what_an_earlier_process_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in ("first\n", "second\n"):
        file = RotatingFile(path, 4000, list)
        file.write(text)
        file.close()
    assert [part.read_text() for part in parts(path)] == ["first\n", "second\n"]


def test_a_disk_that_cannot_be_written_costs_the_lines_alone(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    bench.apply(Hello(0, hidden_size=8, layers=(2,)))
    decisions = attach(bench, blocker / "decisions.jsonl")
    decisions.start()
    serve_one(bench, 7, 3, 6)
    until(lambda: decisions.dropped == 1)
    serve_one(bench, 8, 4, 6)
    until(lambda: decisions.dropped == 2)
    decisions.close()
    assert decisions.written == 0
    assert bench.pipeline.timelines.listener_failures == 0


def test_a_full_queue_drops_and_counts(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trail.sidecar.history.decision_log.QUEUE_SIZE", 1)
    bench.apply(Hello(0, hidden_size=8, layers=(2,)))
    decisions = attach(bench, tmp_path / "log")
    for key in (7, 8, 9):
        serve_one(bench, key, 3, 3)
    assert decisions.dropped == 2
