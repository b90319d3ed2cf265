"""The check of a shadow report's gain: it must be able to say no."""

from pathlib import Path
from typing import Any

import pytest
from decision_log_maker import Made, write

from benchmarks.fidelity.shadow_check import judge, main
from trail.policy.spec import parse_policy
from trail.report.stats import summary
from trail.simulation.run import Served
from trail.simulation.shadow.log import EngineLog, read_log


def run_of(repeat: int, served: Served) -> dict[str, Any]:
    """What the check reads of a benchmark's run."""
    return {
        "repeat": repeat,
        "latency_s": summary(served.latency_s),
        "ttft_s": summary(served.ttft_s),
        "outputs": None,
        "duration_s": served.span_s,
        "engine": {"steps": served.count.steps},
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineLog, dict[str, Any]]:
    """A log of two shadow runs, and what two simulated "real" runs of each arm gave."""
    records: list[dict[str, Any]] = []
    runs: dict[str, list[dict[str, Any]]] = {"trail-c0.2-shadow": [], "trail-c0.2": []}
    for repeat in range(2):
        made = Made(seed=repeat)
        for record in made.records():
            if record["kind"] == "request":
                record["id"] = record["id"].replace("cmpl-r", f"cmpl-r{repeat}-trail-c0.2-shadow-")
                record["arrival_s"] += 1000.0 * repeat
            records.append(record)
        for name, served in (("trail-c0.2-shadow", made.served), ("trail-c0.2", made.under("trail-c0.2"))):
            runs[name].append(run_of(repeat, served))
    path = write(tmp_path_factory.mktemp("check") / "log", records)
    arms = {name: {"runs": those} for name, those in runs.items()}
    return read_log(path).engines[0], {"arms": arms, "load": {"text": "1.3x"}}


def test_a_right_estimate_is_within(measured: tuple[EngineLog, dict[str, Any]]) -> None:
    engine, results = measured
    document = judge(results, engine, parse_policy("trail-c0.2"))
    assert document["within"]
    assert [r["requests"] for r in document["repeats"]] == [400, 400]
    assert document["estimate_over_measured"]["mean_latency_s"] == pytest.approx(1.0, abs=0.05)


def test_a_machine_that_got_faster_is_told_from_an_estimate_that_is_wrong(
    measured: tuple[EngineLog, dict[str, Any]],
) -> None:
    engine, results = measured
    faster = [run_of(repeat, Made(seed=repeat).under("trail-c0.2", slowness=0.7)) for repeat in range(2)]
    arms = {**results["arms"], "trail-c0.2": {"runs": faster}}
    document = judge({**results, "arms": arms}, engine, parse_policy("trail-c0.2"))
    assert document["step_time"] < 0.9
    assert not document["within"]
    raw, at_speed = (
        document[f"{name}_over_measured"]["mean_latency_s"] for name in ("estimate", "estimate_at_speed")
    )
    assert abs(at_speed - 1) < 0.1 < abs(raw - 1)


def test_a_gain_that_was_not_measured_is_not_within(measured: tuple[EngineLog, dict[str, Any]]) -> None:
    engine, results = measured
    shadow = results["arms"]["trail-c0.2-shadow"]
    none = {**results, "arms": {"trail-c0.2-shadow": shadow, "trail-c0.2": shadow}}
    document = judge(none, engine, parse_policy("trail-c0.2"))
    assert not document["within"]
    assert document["measured"]["mean_latency_s"] == pytest.approx(1.0)


def test_help(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--policy" in capsys.readouterr().out
    assert main(["--policy", "nonsense", "--out", str(tmp_path)]) == 2
