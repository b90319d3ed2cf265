"""What `trail top` shows of recorded snapshots, on terminals of every size."""

import math

import pytest
from rich.console import Console
from snapshots import ended, life, running, snapshot

from trail.commands.top.figures import predicted_length, quality, running_first, seconds, short_id, tokens
from trail.commands.top.frame import frame
from trail.commands.top.source import Reading


def lines(*readings: Reading, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, record=True, file=None, color_system=None, quiet=False)
    with console.capture() as capture:
        console.print(frame(readings, width, height))
    return capture.get().splitlines()


def text(*readings: Reading, **size: int) -> str:
    return "\n".join(lines(*readings, **size))


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("height", [10, 24, 60])
@pytest.mark.parametrize(("runs", "waits", "engines"), [(0, 0, 1), (3, 0, 1), (16, 40, 1), (9, 2, 3)])
def test_every_frame_fits_the_terminal(width: int, height: int, runs: int, waits: int, engines: int) -> None:
    shown = lines(
        Reading("h:1", snapshot(runs=runs, waits=waits, engines=engines)), width=width, height=height
    )
    assert len(shown) <= max(height, 10)
    assert all(len(line) <= width for line in shown)


def test_one_frame_answers_the_questions_of_an_operator() -> None:
    page = text(Reading("h:1", snapshot()))
    assert "16 running, 40 waiting" in page
    assert "16/16" in page
    assert "87%" in page
    assert "812+3" in page
    assert "c 0.20 gen 3: as stated at the start" in page
    assert "off by 15 (+5), 6 refined, of 75 tokens (last 2 answers)" in page
    assert "protected, rat" in page
    assert "running 7 of 16" in page
    assert "waiting 7 of 40" in page
    assert "safe" in text(Reading("h:1", snapshot()), height=60)


def test_pacing_is_said_whatever_reason_c_has_and_left_out_where_it_is_not_known() -> None:
    shown = lines(Reading("h:1", snapshot(reason="by the operator: " + "because " * 20)))
    (line,) = [line for line in shown if "gen 3" in line]
    assert line.endswith("…   pacing shared-cores")
    assert "pacing" not in text(Reading("h:1", snapshot(pacing="")))


def test_room_that_one_table_does_not_need_goes_to_the_other() -> None:
    page = text(Reading("h:1", snapshot(runs=2, waits=40)))
    assert "running 2\n" in page.replace("running 2 ", "running 2\n", 1)
    assert "waiting 12 of 40" in page


def test_shadow_and_problems_are_said() -> None:
    page = text(Reading("h:1", snapshot(shadow=True, text="trail-c0.2-shadow", problem="wrong hidden size")))
    assert "shadow: vLLM's own order" in page
    assert "demo-0: wrong hidden size" in page


def test_several_sidecars_share_a_frame_and_a_lost_one_stays_with_its_age() -> None:
    page = text(
        Reading("h:1", snapshot(pod="a-0", runs=2, waits=2)),
        Reading(
            "h:2",
            snapshot(pod="b-0", runs=1, waits=0, reason=""),
            7.4,
            "lost h:2; trying again",
        ),
        Reading("h:3", None, 0.0, "no sidecar at h:3: start one"),
        width=110,
    )
    assert "2 engines" in page
    assert "3 running, 2 waiting" in page
    assert "lost h:2; trying again (shown: 7 s old)" in page
    assert "no sidecar at h:3" in page
    assert "a-0  c 0.20" in page
    assert "b-0  c 0.20" in page


def test_without_any_sidecar_the_sentence_is_all() -> None:
    shown = lines(Reading("h:1", None, 0.0, "no sidecar at h:1: start one"))
    assert len(shown) == 2
    assert "no sidecar at h:1" in shown[1]


def test_names_that_clients_chose_are_text() -> None:
    made = snapshot(runs=0, waits=0)
    made.engines[0].running.append(running(1, 5, 6.0))
    made.engines[0].running[0].request_id = "cmpl-[red]x[/red]\x1b[2J\n-0-ab"
    page = text(Reading("h:1", made), width=140)
    assert "[red]x[/red]?[2J?-0-ab" in page


def test_what_nothing_is_known_of_is_a_dash() -> None:
    made = snapshot(runs=0, waits=0)
    made.engines[0].running.append(life("a", state=2, age=7))
    made.engines[0].waiting.append(life("b", state=1, denied=[99]))
    page = text(Reading("h:1", made))
    assert "nan" not in page
    assert "cause 99" in page


def test_those_that_give_way_first_come_first() -> None:
    lives = [running(0, 5, 10.0), running(1, 5, 90.0), running(2, 5, 99.0, protected=True)]
    assert [v.predicted_remaining for v in running_first(lives)] == [90.0, 10.0, 99.0]
    assert predicted_length(lives[0]) == 15.0
    assert math.isnan(predicted_length(life("x")))


def test_quality_counts_whole_answers_alone() -> None:
    found = quality([ended(0, 100, 120.0, 8.0), ended(1, 50, 40.0, 4.0), ended(2, 5, 99.0, 9.0, "abort")])
    assert (found.requests, found.initial_mae, found.bias, found.refined_mae) == (2, 15.0, 5.0, 6.0)
    assert quality([]).requests == 0
    assert math.isnan(quality([]).initial_mae)


def test_numbers_and_names_keep_to_their_columns() -> None:
    assert [seconds(v) for v in (0.419, 12.34, 240.0, math.nan)] == ["0.42", "12.3", "4 min", "-"]
    assert [tokens(v) for v in (7.6, 99_999.0, 123_456.0, math.nan)] == ["8", "99999", "123k", "-"]
    assert short_id("chatcmpl-abc", 14) == "abc"
    cut = short_id("cmpl-" + "a" * 20 + "zz", 9)
    assert len(cut) == 9
    assert cut.endswith("zz")
