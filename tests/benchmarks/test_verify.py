"""The command that compares closed form and simulation, on one group instead of the whole grid."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.closed_form import verify
from benchmarks.closed_form.grid import CS, EFFORT, groups


@pytest.mark.parametrize(("half_width", "rounds"), [("0.5", 1), ("1e-6", 2)])
def test_replications_are_added_until_intervals_are_narrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_width: str, rounds: int
) -> None:
    monkeypatch.delenv("TRAIL_SHARED", raising=False)
    monkeypatch.setattr(verify, "groups", lambda name, lengths: groups(name, lengths, loads=(0.5,))[:1])
    most = str(2 * verify.ROUND)
    words = ["--out", str(tmp_path), "--half-width", half_width, "--most", most, "--jobs", "2"]
    assert verify.main(words) == 0
    document: dict[str, Any] = json.loads((tmp_path / "closed_form.json").read_text())
    assert [cell["c"] for cell in document["cells"]] == list(CS)
    assert {cell["replications"] for cell in document["cells"]} == {rounds * verify.ROUND}
    assert document["requests"] == rounds * verify.ROUND * EFFORT.requests
    worst = max(abs(cell["ratio"] - 1) for cell in document["cells"])
    assert document["largest_deviation"] == worst <= verify.TOLERANCE


def test_impossible_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        verify.main(["--most", "3"])
    assert "--most at least 16" in capsys.readouterr().err
