"""What a drill says of a wave: who was answered, whether alike, and the longest silence."""

import pytest

from benchmarks.drill.__main__ import main
from benchmarks.drill.waves import Wave, longest_silence_s, told
from trail.bench.client import COMPLETED, CUT, ClientRun, Outcome


def outcome(index: int, times: tuple[float, ...], digest: str, kind: str = COMPLETED) -> Outcome:
    return Outcome(
        index=index,
        request_id=f"w-{index}",
        outcome=kind,
        reason="",
        arrival_s=0.0,
        send_lag_s=0.0,
        output_tokens=len(times),
        digest=digest,
        token_times_s=times,
        token_counts=(1,) * len(times),
    )


def wave(kind: str, *outcomes: Outcome, fallback_steps: int = 0) -> Wave:
    return Wave(kind, ClientRun(outcomes, 2.0, ()), steps=10, fallback_steps=fallback_steps)


def test_the_longest_silence_is_between_tokens_of_any_requests() -> None:
    outcomes = [outcome(0, (0.1, 0.5, 2.0), "a"), outcome(1, (0.2, 1.1), "b")]
    assert longest_silence_s(outcomes) == pytest.approx(0.9)
    assert longest_silence_s([]) == 0.0


def test_a_wave_counts_lost_and_changed_answers() -> None:
    steady = wave("steady", outcome(0, (0.1,), "a"), outcome(1, (0.2,), "b"), outcome(2, (0.3,), "c"))
    hit = wave(
        "kill",
        outcome(0, (0.1,), "a"),
        outcome(1, (0.2,), "other"),
        outcome(2, (0.3,), "", CUT),
        fallback_steps=4,
    )
    found = told(hit, steady)
    assert (found["requests"], found["completed"], found["identical"]) == (3, 2, 1)
    assert (found["steps"], found["fallback_steps"]) == (10, 4)
    assert found["tokens_per_s"] == 1.0


def test_help_and_unknown_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--minutes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["--minuets", "3"])
