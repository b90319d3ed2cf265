"""Events as messages and back: the bytes of old, every field, and the order in which they apply."""

import enum
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trail.sidecar.loop.prompting import PromptJob
from trail.sidecar.requests.timeline import State
from trail.wire.changes import Cause, Change
from trail.wire.lifecycle import (
    UINT32_MAX,
    Changed,
    Clocks,
    EngineSummary,
    Event,
    Finished,
    Hello,
    Load,
    Started,
    from_message,
    to_message,
)
from trail.wire.v1 import trail_pb2

SUMMARY = EngineSummary(
    10**15 + 1, 10**15 + 2, 10**15 + 3, 10**15 + 4, 50, 1, 2, 3, (Cause.RATIO, Cause.KV_FULL), 4, running=True
)
KEY = 2**63 + 5
CLOCKS = Clocks(10**15 + 7, 17 * 10**17 + 9)
ALL = Started(
    KEY, "cmpl-1", 7, [1, 200, 70000], max_tokens=2**40, exact_output_tokens=31, age=9,
    initial_prediction=5.5, arrival_time_s=12.5, priority=-2,
    trace_headers={"traceparent": "00-ab-cd-01"}, summary=SUMMARY,
)  # fmt: skip
BYTES_OF_ALL = (
    "1297010905000000000000801206636d706c2d311807220601c801f0a20428ffffffff0f31000000000000294038feffffffffff"
    "ffffff01421a0a0b7472616365706172656e74120b30302d61622d63642d3031481f50095d0000b040623b090180c6a47e8d0300"
    "110280c6a47e8d0300190380c6a47e8d0300210480c6a47e8d03002932000000000000003001380240034a02060150045801"
)
BYTES_OF_CLOCKS = "310780c6a47e8d03003909002a36fe9c9717"


@pytest.mark.parametrize(
    ("events", "encoded"),
    [
        (
            [Hello(3, "0.32.0", "example/small", 4096, (14, 15), "bfloat16", 16, 9000, 256, 8192, False)],
            "0a3708031206302e33322e301a0d6578616d706c652f736d616c6c2080202a020e0f32086266"
            "6c6f61743136381040a8464880025080405800",
        ),
        ([ALL, CLOCKS], BYTES_OF_ALL + BYTES_OF_CLOCKS),
        ([Started(6, "b", 0, (), 16), CLOCKS], "120e0906000000000000001201622810" + BYTES_OF_CLOCKS),
        (
            [
                Changed(KEY, Change.PREEMPTED, 10**15 + 25, 7, Cause.SLOT, 6, -1.5),
                Changed(6, Change.DENIED, 10**15 + 26, 0, Cause.PROTECTED),
                Changed(6, Change.ADMITTED, 10**15 + 27, rank=0.0),
            ],
            "2a260905000000000000801006191980c6a47e8d0300200728023106000000000000003d0000c0bf2a16090600000000"
            "0000001009191a80c6a47e8d030028042a190906000000000000001004191b80c6a47e8d03003d00000000",
        ),
        (
            [Finished(KEY, 7, 10, 1, 4, "length", SUMMARY), Finished(6, 0, 0, finish_reason="abort")],
            "1a560905000000000000801007180a2001280432066c656e6774683a3b090180c6a47e8d0300110280c6a47e8d030019"
            "0380c6a47e8d0300210480c6a47e8d03002932000000000000003001380240034a020601500458011a10090600000000"
            "000000320561626f7274",
        ),
        ([Load(1, 2, 0.5, 3, 4, 5, 6, 7, 8)], "2215080110021d0000003f200328043005380640074808"),
    ],
)
def test_the_bytes_are_those_that_every_sidecar_reads(events: list[Event], encoded: str) -> None:
    assert to_message(events).SerializeToString().hex() == encoded


def test_any_number_of_tokens_may_be_asked_for() -> None:
    (told,) = from_message(to_message([ALL]))
    assert told == replace(ALL, prompt_token_ids=(1, 200, 70000), max_tokens=UINT32_MAX)


UINT32, KEYS = st.integers(0, UINT32_MAX), st.integers(1, 2**64 - 1)
NS, FLOATS = st.integers(0, 2**64 - 1), st.floats(width=32, allow_nan=False)
SUMMARIES = st.none() | st.builds(
    EngineSummary, NS, NS, NS, NS, NS, UINT32, UINT32, UINT32, st.lists(st.sampled_from(Cause)).map(tuple),
    UINT32, st.booleans(),
)  # fmt: skip
STARTED = st.builds(
    Started, KEYS, st.text(max_size=9), UINT32, st.lists(UINT32).map(tuple), UINT32, UINT32, UINT32, FLOATS,
    st.floats(allow_nan=False), st.integers(-(2**31), 2**31 - 1), st.dictionaries(st.text(), st.text()),
    SUMMARIES,
)  # fmt: skip
CHANGED = st.builds(
    Changed, KEYS, st.sampled_from(Change), NS, UINT32, st.sampled_from(Cause), NS, st.none() | FLOATS
)
FINISHED = st.builds(Finished, KEYS, UINT32, UINT32, UINT32, UINT32, st.text(max_size=9), SUMMARIES)
LOADS = st.builds(Load, UINT32, UINT32, FLOATS, *[NS] * 6)
HELLOS = st.builds(
    Hello, UINT32, st.text(), st.text(), UINT32, st.lists(UINT32).map(tuple), st.text(),
    *[UINT32] * 4, st.none() | st.booleans(),
)  # fmt: skip


@settings(deadline=None)
@given(
    st.none() | HELLOS, st.lists(STARTED, max_size=4), st.lists(CHANGED, max_size=4),
    st.lists(FINISHED, max_size=4, unique_by=lambda event: event.key), st.none() | LOADS,
)  # fmt: skip
def test_every_event_comes_back_as_it_went(
    hello: Hello | None, begun: list[Started], changes: list[Changed], ends: list[Finished], load: Load | None
) -> None:
    one_of_each = [event for event in (hello, load, CLOCKS) if event is not None]
    whole = to_message([*ends, *one_of_each, *changes, *begun])
    told = list(from_message(trail_pb2.EngineEvents.FromString(whole.SerializeToString())))

    def of(kind: type[Event]) -> list[Any]:
        return [event for event in told if isinstance(event, kind)]

    assert [*of(Hello), *of(Load), *of(Clocks)] == one_of_each
    assert of(Started) == begun
    assert sorted(of(Changed), key=lambda e: e.key) == sorted(changes, key=lambda e: e.key)
    assert sorted(of(Finished), key=lambda e: e.key) == sorted(ends, key=lambda e: e.key)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Change, trail_pb2.Change, "CHANGE_"),
        (Cause, trail_pb2.Cause, "CAUSE_"),
        (State, trail_pb2.RequestState, "REQUEST_STATE_"),
    ],
)
def test_numbers_are_the_contracts(ours: type[enum.IntEnum], theirs: object, prefix: str) -> None:
    stated = {name.removeprefix(prefix): number for name, number in theirs.items()}  # type: ignore[attr-defined]
    assert stated.pop("UNSPECIFIED") == 0
    assert {item.name: int(item) for item in ours if item.name != "NONE"} == stated


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({f.name for f in fields(Hello)}, trail_pb2.Hello),
        ({f.name for f in fields(Started)}, trail_pb2.RequestStarted),
        (set(Changed._fields), trail_pb2.RequestChanged),
        ({f.name for f in fields(Finished)}, trail_pb2.RequestFinished),
        ({f.name for f in fields(Load)}, trail_pb2.Load),
        (set(EngineSummary._fields), trail_pb2.Passage),
    ],
)
def test_an_event_has_the_contracts_fields(ours: set[str], theirs: Any) -> None:
    stated = {field.name for field in theirs.DESCRIPTOR.fields}
    assert {"passage" if name == "summary" else name for name in ours} == stated


def message(begun: list[tuple[int, int]], ended: list[tuple[int, int]]) -> trail_pb2.EngineEvents:
    return trail_pb2.EngineEvents(
        started=[trail_pb2.RequestStarted(key=key, slot=slot) for key, slot in begun],
        finished=[trail_pb2.RequestFinished(key=key, slot=slot) for key, slot in ended],
    )


def order(*args: list[tuple[int, int]]) -> list[tuple[str, int]]:
    return [("+" if isinstance(e, Started) else "-", e.key) for e in from_message(message(*args))]  # type: ignore[union-attr]  # only these two kinds


def test_slot_is_freed_before_it_is_taken_again() -> None:
    assert order([(2, 5)], [(1, 5)]) == [("-", 1), ("+", 2)]


def test_request_that_began_and_ended_in_one_message_does_not_stay_open() -> None:
    assert order([(2, 5)], [(2, 5)]) == [("+", 2), ("-", 2)]


@settings(deadline=None)
@given(st.data())
def test_any_history_of_one_slot_replays_in_its_order(data: st.DataObject) -> None:
    """Requests 1..n pass through slots one after another; a message holds any stretch of that history."""
    history: list[tuple[str, int, int]] = []
    free, running = [0, 1, 2], {}
    for key in range(1, 12):
        while running and (not free or data.draw(st.booleans())):
            ended = data.draw(st.sampled_from(sorted(running)))
            history.append(("-", ended, running[ended]))
            free.append(running.pop(ended))
        running[key] = free.pop()
        history.append(("+", key, running[key]))
    begin = data.draw(st.integers(0, len(history)))
    part = history[begin:]
    holder: dict[int, int] = {}
    for sign, key, slot in history[:begin]:
        if sign == "+":
            holder[slot] = key
        else:
            del holder[slot]
    replayed = order(
        [(key, slot) for sign, key, slot in part if sign == "+"],
        [(key, slot) for sign, key, slot in part if sign == "-"],
    )
    slot_of = {key: slot for _, key, slot in history}
    for sign, key in replayed:
        if sign == "+":
            assert slot_of[key] not in holder, "a slot was taken while its request was still open"
            holder[slot_of[key]] = key
        else:
            assert holder.pop(slot_of[key]) == key
    assert sorted(holder.values()) == sorted(running)


def test_an_engine_that_does_not_say_whether_it_caches_prefixes_is_not_taken_to_say_no() -> None:
    (hello,) = from_message(trail_pb2.EngineEvents(hello=trail_pb2.Hello(engine=0)))
    assert hello.prefix_caching is None  # type: ignore[union-attr]  # it is hello


def changed(*items: tuple[int, Change]) -> list[trail_pb2.RequestChanged]:
    return [trail_pb2.RequestChanged(key=key, change=int(change)) for key, change in items]


def test_a_request_changes_between_its_start_and_its_end() -> None:
    whole = message([(2, 5), (3, 6)], [(1, 5), (2, 5)])
    whole.changed.extend(
        changed((1, Change.RESUMED), (9, Change.ADMITTED), (3, Change.ADMITTED), (2, Change.ADMITTED),
                (1, Change.FIRST_TOKEN), (2, Change.FIRST_TOKEN))
    )  # fmt: skip
    told = [(type(e).__name__, e.key, getattr(e, "change", None)) for e in from_message(whole)]  # type: ignore[union-attr]  # none of the others is there
    for key in (1, 2, 3):
        mine = [kind for kind, of, _ in told if of == key]
        assert mine == sorted(mine, key=["Started", "Changed", "Finished"].index)
    assert [c for _, key, c in told if key == 1 and c] == [Change.RESUMED, Change.FIRST_TOKEN]
    assert [c for _, key, c in told if key == 2 and c] == [Change.ADMITTED, Change.FIRST_TOKEN]
    assert len(told) == 4 + 6


def test_a_request_that_is_sent_again_in_the_same_message_changes_once() -> None:
    whole = message([(2, 5), (2, 5)], [])
    whole.changed.extend(changed((2, Change.ADMITTED)))
    told = [type(event).__name__ for event in from_message(whole)]
    assert sorted(told) == ["Changed", "Started", "Started"]


def test_what_a_newer_engine_says_is_left_out_and_what_an_older_does_not_is_missing() -> None:
    summary = trail_pb2.Passage(queued_ns=1, denied=[trail_pb2.CAUSE_RATIO, 77], running=True)
    whole = trail_pb2.EngineEvents(
        started=[trail_pb2.RequestStarted(key=1, slot=1, passage=summary)],
        changed=[
            trail_pb2.RequestChanged(key=1, change=77),
            trail_pb2.RequestChanged(key=1, change=trail_pb2.CHANGE_DENIED, cause=77),
        ],
        finished=[trail_pb2.RequestFinished(key=2, slot=2, finish_reason="stop")],
    )
    assert list(from_message(whole)) == [
        Finished(2, 2, 0, summary=None),
        Started(1, "", 1, (), summary=EngineSummary(1, denied=(Cause.RATIO,), running=True)),
        Changed(1, Change.DENIED, 0),
    ]


def test_prompts_are_in_no_representation() -> None:
    assert "0, 1, 2" not in repr(Started(1, "r1", 2, (0, 1, 2)))
    assert "7" not in repr(PromptJob(engine=0, key=1, token_ids=(7, 7)))
