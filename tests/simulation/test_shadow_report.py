"""From a decision log to an estimate: right where the truth is known, and clear where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decision_log_maker import CONFIG, EVERY, STEPS, Made, write
from page_kit import assert_self_contained

from trail.cli import main
from trail.policy.spec import parse_policy
from trail.simulation.shadow.estimate import estimate
from trail.simulation.shadow.log import LogError, read_log
from trail.simulation.shadow.replay import ReplayError, prepare, recorded
from trail.simulation.shadow.report import headline, render


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture
def log(made: Made, tmp_path: Path) -> Path:
    return write(tmp_path / "decisions.jsonl", made.records())


@pytest.fixture(scope="module")
def found(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write(tmp_path_factory.mktemp("log") / "decisions.jsonl", made.records())
    return estimate(path, ["trail-c0.2", "sjf"], last=20_000, token_budget=8192, lag=2)


def test_the_estimate_is_the_gain_that_switching_on_gives(made: Made, found: dict[str, Any]) -> None:
    stock = made.served.latency_s.mean()
    for policy in ("trail-c0.2", "sjf"):
        true = stock / made.under(policy).latency_s.mean()
        assert true > 1.15, "the workload must have something to gain"
        assert found["gains"][policy]["mean_latency_s"] == pytest.approx(true, rel=0.05)
    assert found["fidelity"] == pytest.approx(1.0, abs=0.05)
    assert found["requests"] == len(made.work)


def test_step_times_come_from_the_log(made: Made, log: Path) -> None:
    (engine,) = read_log(log).engines
    replay = prepare(engine, engine.requests, token_budget=8192, lag=2)
    assert replay.config == CONFIG
    assert replay.steps.seconds(8, 0, 500) == pytest.approx(STEPS.seconds(8, 0, 500), rel=0.05)


def test_predictions_are_those_that_were_logged(made: Made, log: Path) -> None:
    (engine,) = read_log(log).engines
    assert [r.arrival_s for r in engine.requests] == sorted(r.arrival_s for r in engine.requests)
    back = recorded(engine.requests)
    assert back.every == EVERY
    np.testing.assert_allclose(back.initial, made.predictions.initial)
    own = np.setdiff1d(np.arange(len(back.refined)), back.first)  # at age 0 the initial prediction stands
    np.testing.assert_allclose(back.refined[own], made.predictions.refined[own], rtol=1e-6)


def test_between_logged_predictions_they_are_counted_down(made: Made, tmp_path: Path) -> None:
    records = made.records()[:3]
    records[2] |= {"output_tokens": 33, "initial": 20.0, "refined": [[10, 30.0], [30, 1.0]]}
    (engine,) = read_log(write(tmp_path / "log", records)).engines
    assert recorded(engine.requests).refined.tolist() == [20.0, 12.0, 24.0, 16.0, 0.0]


def test_parts_are_read_oldest_first_and_damage_is_counted(made: Made, tmp_path: Path) -> None:
    records = made.records()
    path = write(tmp_path / "log", records[:2] + records[200:])
    write(tmp_path / "log.1", records[:200])
    with (tmp_path / "log.1").open("a") as file:
        file.write('{"kind": "request", "eng')
    record = read_log(path)
    assert record.damaged == 1
    assert sum(len(engine.requests) for engine in record.engines) == len(made.work)


def test_only_requests_in_the_engines_own_order_count(made: Made, tmp_path: Path) -> None:
    records = made.records()
    for record in records[2:200]:
        record["policy"] = "trail-c0.2"
    found = estimate(write(tmp_path / "log", records), [], last=20_000, token_budget=8192, lag=2)
    assert found["requests"] == len(made.work) - 198
    assert list(found["gains"]) == ["trail-c0.2"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "trail-c0.2"}, "served in the engine's own order"),
        ({"found": True}, "0 of 400 logged requests can be replayed"),
        ({"initial": None}, "no logged request has a prediction"),
        ({"policy": "fcfs"}, "names no policy"),
        ({"output_tokens": 0}, "let the sidecar log for longer"),
    ],
)
def test_logs_that_say_too_little(made: Made, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    records = [r | change if r["kind"] == "request" else r for r in made.records()]
    with pytest.raises((LogError, ReplayError), match=says):
        estimate(write(tmp_path / "log", records), [], last=20_000, token_budget=8192, lag=2)


def test_a_missing_and_a_foreign_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="start the sidecar with --decision-log"):
        read_log(tmp_path / "log")
    with pytest.raises(LogError, match="format 9, this version reads 1"):
        read_log(write(tmp_path / "log", [{"kind": "log", "format": 9}]))


def test_a_policy_that_no_log_can_answer_for(made: Made, log: Path) -> None:
    (engine,) = read_log(log).engines
    replay = prepare(engine, engine.requests, token_budget=8192, lag=2)
    with pytest.raises(ReplayError, match="a log holds none"):
        replay.serve(parse_policy("trail-c0.2-gittins"))


def test_the_command_writes_both_files_and_tells(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["shadow-report", str(log), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "trail-c0.2 would lower the mean latency" in told
    document = json.loads((out / "shadow.json").read_text())
    assert headline(document) in (out / "shadow.html").read_text()


def test_bad_usage_in_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shadow-report", str(tmp_path / "none")]) == 2
    assert "trail shadow-report: no decision log at" in capsys.readouterr().err
    assert main(["shadow-report", str(tmp_path / "none"), "--last", "0"]) == 2


def test_a_loss_is_called_a_loss(found: dict[str, Any]) -> None:
    worse = {
        **found,
        "gains": {"trail-c0.2": {"mean_latency_s": 0.8, "mean_ttft_s": 1.0, "p99_latency_s": 1.0}},
    }
    assert headline(worse) == "trail-c0.2 would not answer sooner: mean latency 1.25 times higher"


def test_the_page_refers_to_nothing_outside_itself(found: dict[str, Any]) -> None:
    assert_self_contained(render(json.loads(json.dumps(found))))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(
    found: dict[str, Any], tmp_path: Path, quiet_page: Callable[..., Any], scheme: str
) -> None:
    file = tmp_path / "shadow.html"
    file.write_text(render(json.loads(json.dumps(found))))
    with quiet_page(file, color_scheme=scheme, viewport={"width": 420, "height": 900}) as page:
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert page.locator("figure svg").count() == 1
    assert not wide
