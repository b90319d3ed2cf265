"""Lines that are held back, and those that are not."""

import logging

import pytest

from trail.wire.log_lines import OnChange, RateLimited

LOG = logging.getLogger("trail.test")


def test_a_line_is_logged_when_it_differs_from_the_last(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    say = OnChange(LOG)
    for line in ("away", "away", "100 %", "away"):
        say(line)
    say("back", logging.INFO)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "away"),
        ("WARNING", "100 %"),
        ("WARNING", "away"),
        ("INFO", "back"),
    ]


def test_an_empty_line_lets_the_last_be_said_again(caplog: pytest.LogCaptureFixture) -> None:
    say = OnChange(LOG, logging.ERROR)
    for line in ("away", "", "away"):
        say(line)
    assert [(r.levelname, r.message) for r in caplog.records] == [("ERROR", "away"), ("ERROR", "away")]


def test_repeated_lines_are_held_back_and_counted() -> None:
    now_s = [0.0]
    limited = RateLimited(interval_s=60, clock=lambda: now_s[0])
    assert [limited.admit("a"), limited.admit("a"), limited.admit("b"), limited.admit("a")] == [
        0,
        None,
        0,
        None,
    ]
    now_s[0] = 61
    assert limited.admit("a") == 2
