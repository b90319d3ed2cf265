"""Traces joined, their waterfall, and the page of `make observe` in a real browser."""

import json
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from observed import BEGIN, S, made, request
from page_kit import assert_self_contained
from snapshots import snapshot

from benchmarks.observe.__main__ import main
from benchmarks.observe.report import SHOWN, render
from benchmarks.observe.series import Sampler
from benchmarks.observe.traces import chosen, join, stretches
from benchmarks.observe.waterfall import waterfall
from trail.wire.v1 import trail_pb2_grpc


def test_a_trace_is_whole_when_all_spans_hang_on_the_clients() -> None:
    spans, events = request(0)
    (trace,) = join(spans, events)
    assert trace.whole
    assert trace.length_agrees
    (orphan,) = join([*spans[:2], {**spans[2], "parent_id": "other"}], events)
    assert not orphan.whole
    (lacking,) = join(spans[:2], events)
    assert not lacking.whole
    assert not lacking.length_agrees
    (short,) = join(*request(0, tokens=40, received=39))
    assert not short.length_agrees


def test_foreign_spans_are_left_out() -> None:
    spans, events = request(0)
    assert len(join([*spans, {**spans[0], "name": "GET /health", "trace_id": "z"}], events)) == 1


def test_what_a_request_did_follows_its_events() -> None:
    (trace,) = join(*request(0, preempted=True))
    told = [
        (state, round((since - BEGIN) / S, 3), round((until - BEGIN) / S, 3))
        for state, since, until in stretches(trace)
    ]
    assert told == [
        ("waiting", 0.1, 0.5), ("running", 0.5, 0.8), ("preempted", 0.8, 1.2), ("running", 1.2, 1.8),
    ]  # fmt: skip
    assert trace.preemptions == 1
    assert sum(until - since for _, since, until in stretches(trace)) == 1.7 * S


def test_a_request_without_events_only_waited() -> None:
    spans, _ = request(0)
    (trace,) = join(spans, [])
    assert [state for state, _, _ in stretches(trace)] == ["waiting"]


def test_those_that_gave_way_are_among_the_chosen() -> None:
    parts = [request(i, preempted=i in (7, 31)) for i in range(50)]
    traces = join([s for spans, _ in parts for s in spans], [e for _, events in parts for e in events])
    shown = chosen(traces, 10)
    assert len(shown) == 10
    assert {"t007", "t031"} <= {t.trace_id for t in shown}
    assert [t.trace_id for t in shown] == sorted(t.trace_id for t in shown)
    assert chosen(traces, 99) == traces


def test_the_waterfall_has_a_bar_for_every_stretch_and_a_mark_for_every_event() -> None:
    drawn = waterfall(join(*request(0, preempted=True)))
    for kind, count in (("client", 1), ("engine", 1), ("wait", 1), ("run", 2), ("again", 1), ("first", 1),
                        ("safe", 1), ("deny", 1)):  # fmt: skip
        assert drawn.count(f'<rect class="{kind}"') == count, kind
    assert "&lt;b&gt;r&lt;/b&gt;" in drawn
    assert waterfall([]) == ""


def test_the_document_counts_and_holds_only_json() -> None:
    document = made(60)
    assert (document["completed"], document["whole_traces"], document["lengths_agree"]) == (60, 60, 60)
    assert document["preemptions"] == 15
    assert '"-inf"' in json.dumps(document, allow_nan=False)


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = render(made())
    assert_self_contained(page)
    assert f"{SHOWN} of 60 traces" in page


def test_a_page_of_nothing_says_so() -> None:
    document = made(1)
    document |= {"spans": [], "events": [], "series": {name: [] for name in document["series"]}}
    page = render(document)
    for sentence in ("No trace came.", "The sidecar did not answer.", "No span has both predictions."):
        assert sentence in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it(tmp_path: Path, quiet_page: Callable[..., Any], scheme: str, width: int) -> None:
    file = tmp_path / "observe.html"
    file.write_text(render(json.loads(json.dumps(made()))))
    with quiet_page(file, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert page.locator("figure svg").count() == 3
        assert page.locator("svg.waterfall rect.run").count() > SHOWN
        run = page.evaluate("getComputedStyle(document.querySelector('rect.run')).fill")
    assert not wide
    assert run == ("rgb(47, 99, 184)" if scheme == "light" else "rgb(127, 176, 255)")


def test_samples_are_taken_from_the_observe_service(tmp_path: Path) -> None:
    class Answers(trail_pb2_grpc.ObserveServicer):
        def Snapshot(self, request: Any, context: Any) -> Any:  # noqa: N802
            assert request.requests == 0
            return snapshot(runs=2, waits=3, engines=2)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trail_pb2_grpc.add_ObserveServicer_to_server(Answers(), server)
    server.add_insecure_port(f"unix:{tmp_path}/sidecar.sock")
    server.start()
    sampler = Sampler(str(tmp_path), clock=iter([5.0, 7.5]).__next__)
    sampler.look()
    server.stop(None).wait(5)
    sampler.look()
    seen = sampler.columns
    assert (seen["at_s"], seen["running"], seen["waiting"], seen["policy_preemptions"]) == (
        [2.5],
        [4.0],
        [6.0],
        [1624.0],
    )
    assert seen["kv_usage"] == [pytest.approx(0.87)]


def test_bad_usage(tmp_path: Path) -> None:
    assert main(["--rate", "0", "--out", str(tmp_path)]) == 2
    assert main(["--policy", "nonsense", "--out", str(tmp_path)]) == 2
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
