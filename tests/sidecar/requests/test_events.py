"""The order in which the events of one message apply, and that prompts stay out of every representation."""

from hypothesis import given, settings
from hypothesis import strategies as st
from service_kit import started

from trail.sidecar.loop.prompting import PromptJob
from trail.sidecar.requests.events import Changed, Clocks, Finished, Load, Started, from_message
from trail.sidecar.requests.timeline import Passage
from trail.wire.changes import Cause, Change
from trail.wire.v1 import trail_pb2


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


def test_every_field_arrives() -> None:
    whole = trail_pb2.EngineEvents(
        hello=trail_pb2.Hello(
            engine=1, vllm_version="0.32", model="m", hidden_size=8, layers=[2, 3], dtype="float16",
            block_size_tokens=16, kv_blocks=10, max_running=4, max_model_len=99, prefix_caching=False,
        ),
        started=[
            trail_pb2.RequestStarted(
                key=5, request_id="a", slot=6, prompt_token_ids=[1, 2], max_tokens=7, exact_output_tokens=8,
                age=9, initial_prediction=10.5,
            )
        ],
        finished=[
            trail_pb2.RequestFinished(
                key=4, slot=3, output_tokens=2, preemptions=1, recomputed_tokens=11, finish_reason="length"
            )
        ],
        load=trail_pb2.Load(
            waiting=1, running=2, kv_usage=0.5, preemptions_total=3, policy_preemptions_total=4,
            recomputed_tokens_total=5, fallback_steps_total=6, steps_total=7, preemptions_denied_total=8,
        ),
    )  # fmt: skip
    hello, finished, begun, load = from_message(whole)
    assert (hello.engine, hello.layers, hello.dtype, hello.max_model_len) == (1, (2, 3), "float16", 99)  # type: ignore[union-attr]  # the first is hello
    assert hello.prefix_caching is False  # type: ignore[union-attr]  # the same
    assert begun == Started(5, "a", 6, (1, 2), 7, 8, 9, 10.5)
    assert finished == Finished(4, 3, 2, 1, 11, "length")
    assert load == Load(1, 2, 0.5, 3, 4, 5, 6, 7, 8)


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


def test_every_field_of_a_change_arrives_and_an_unknown_one_is_left_out() -> None:
    whole = trail_pb2.EngineEvents(
        changed=[
            trail_pb2.RequestChanged(
                key=5, change=trail_pb2.CHANGE_PREEMPTED, time_ns=10**15, age=7,
                cause=trail_pb2.CAUSE_SLOT, other=9, rank=0.0,
            ),
            trail_pb2.RequestChanged(key=5, change=77),
            trail_pb2.RequestChanged(key=5, change=trail_pb2.CHANGE_DENIED, cause=77),
        ],
        monotonic_ns=10**15,
        wall_ns=17 * 10**17,
    )  # fmt: skip
    assert list(from_message(whole)) == [
        Clocks(10**15, 17 * 10**17),
        Changed(5, Change.PREEMPTED, 10**15, 7, Cause.SLOT, 9, 0.0),
        Changed(5, Change.DENIED, 0),
    ]


def test_a_passage_arrives_and_an_older_engines_lack_of_one_shows() -> None:
    passage = trail_pb2.Passage(
        queued_ns=1, admitted_ns=2, first_token_ns=3, ended_ns=4, waited_ns=5, policy_preemptions=6,
        memory_preemptions=7, granted=8, denied=[trail_pb2.CAUSE_RATIO, 77], fallback_steps=9, running=True,
    )  # fmt: skip
    whole = trail_pb2.EngineEvents(
        started=[
            trail_pb2.RequestStarted(
                key=1, slot=1, arrival_time_s=2.5, priority=-1, trace_headers={"traceparent": "x"},
                passage=passage,
            )
        ],
        finished=[trail_pb2.RequestFinished(key=2, slot=2)],
    )  # fmt: skip
    ended, begun = from_message(whole)
    assert ended.passage is None  # type: ignore[union-attr]  # the order is tested above
    assert begun.passage == Passage(1, 2, 3, 4, 5, 6, 7, 8, frozenset({Cause.RATIO}), 9, True)  # type: ignore[union-attr]
    assert (begun.arrival_time_s, begun.priority, begun.trace_headers) == (2.5, -1, {"traceparent": "x"})  # type: ignore[union-attr]


def test_prompts_are_in_no_representation() -> None:
    assert "0, 1, 2" not in repr(started(1, 2))
    assert "7" not in repr(PromptJob(engine=0, key=1, token_ids=(7, 7)))
