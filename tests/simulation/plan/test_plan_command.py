"""`trail plan` from files to answers: what it reads, what it says, and what it refuses."""

import argparse
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_kit import assert_self_contained

from trail.commands import plan as command
from trail.report.palette import arm_styles
from trail.simulation.plan.inputs import predicted_law, read_confusion
from trail.simulation.plan.mg1 import lognormal_law
from trail.simulation.plan.report import render
from trail.simulation.plan.service import Service
from trail.simulation.plan.study import CS, Question, Study, loads_from, parse_plan_arms

LENGTHS = np.random.default_rng(2).gamma(1.2, 90, 300).astype(int) + 2


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    """A file of lengths with a predicted length and a class for each."""
    rows = [f"{n},{0.5 * n + 40:.1f},{int(n > 60) + int(n > 150)}" for n in LENGTHS]
    file = tmp_path / "lengths.csv.gz"
    file.write_bytes(gzip.compress("\n".join(["output_tokens,said,class", *rows]).encode()))
    return file


def plan(*words: str | Path) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.configure(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def planned(file: Path, out: Path, *words: str) -> dict[str, Any]:
    assert plan("--lengths", file, "--out", out, *words) == 0
    document: dict[str, Any] = json.loads((out / "plan.json").read_text())
    return document


def test_a_plan_holds_the_closed_form_beside_its_simulation(lengths: Path, tmp_path: Path) -> None:
    d = planned(
        lengths, tmp_path / "out", "--tokens-per-s", "1000", "--predictions", "lognormal:0.5", "--load", "0.8"
    )
    assert d["workload"]["mean_tokens"] == pytest.approx(LENGTHS.mean())
    assert d["service"]["requests_per_s"] == pytest.approx(1000 / LENGTHS.mean())
    assert d["question"]["load"] == pytest.approx(0.8)
    fcfs = 0.8 * np.square(LENGTHS).mean() / LENGTHS.mean() / 1000 / (2 * 0.2) + LENGTHS.mean() / 1000
    assert d["arms"]["fcfs"]["at"]["response_s"] == pytest.approx(fcfs)
    for arm in d["arms"].values():
        assert arm["response_s"] == sorted(arm["response_s"])
        simulated = arm["at"]["simulated"]
        assert 0 < simulated["half_width"] < 0.1 * simulated["mean"]
        assert abs(simulated["mean"] - arm["at"]["response_s"]) < 3 * simulated["half_width"]
        assert simulated["p50"] <= simulated["p95"] <= simulated["p99"]
    at = {name: arm["at"]["response_s"] for name, arm in d["arms"].items()}
    assert at["oracle-c1"] < at["trail-prompt-c0.8"] < at["fcfs"]
    assert at["sjf"] == pytest.approx(dict(zip(d["c"]["c"], d["c"]["response_s"], strict=True))[0.0])
    assert d["c"]["c"] == list(CS)
    assert d["c"]["near_best"] <= d["c"]["best"]


def test_a_target_says_the_load_and_the_replicas_it_takes(lengths: Path, tmp_path: Path) -> None:
    words = ("--tokens-per-s", "1000", "--rate", "30", "--replicas", "5", "--target", "0.3")
    d = planned(lengths, tmp_path / "out", *words)
    study = Study(
        predicted_law("exact", LENGTHS.astype(float), lengths),
        Service(1000.0, None, ""),
        parse_plan_arms("fcfs,trail-prompt-c0.2"),
    )
    for arm in study.arms:
        found = d["arms"][arm.name]["target"]
        n = found["replicas"]
        assert study.judged_s(arm, 30 / n / study.capacity_per_s) <= 0.3
        fewer = 30 / (n - 1) / study.capacity_per_s
        assert fewer >= 1 or study.judged_s(arm, fewer) > 0.3
        assert study.judged_s(arm, found["highest_load"] + 2e-4) > 0.3
    assert (
        d["arms"]["trail-prompt-c0.2"]["target"]["highest_load"] > d["arms"]["fcfs"]["target"]["highest_load"]
    )


def test_a_target_below_the_size_of_a_request_is_out_of_reach(
    lengths: Path, tmp_path: Path, capsys: Any
) -> None:
    d = planned(lengths, tmp_path / "out", "--tokens-per-s", "1000", "--target", "0.01")
    assert d["arms"]["fcfs"]["target"] == {"highest_load": None, "requests_per_s": None, "replicas": None}
    assert "out of reach at any load" in " ".join(capsys.readouterr().out.split())


def test_beyond_capacity_there_is_no_mean_but_still_an_answer(
    lengths: Path, tmp_path: Path, capsys: Any
) -> None:
    d = planned(lengths, tmp_path / "out", "--tokens-per-s", "1000", "--load", "1.4", "--target", "1")
    assert d["arms"]["fcfs"]["at"] is None
    assert d["c"] is None
    assert d["arms"]["fcfs"]["target"]["replicas"] >= 2
    assert "1.40 times the capacity" in capsys.readouterr().out
    assert "1.40 times the capacity" in (tmp_path / "out" / "plan.html").read_text()


@pytest.mark.parametrize(
    ("predictions", "said"),
    [("column:said", 0.5 * LENGTHS + 40), ("exact", LENGTHS)],
)
def test_predictions_come_with_the_lengths(lengths: Path, predictions: str, said: np.ndarray) -> None:
    law = predicted_law(predictions, LENGTHS.astype(float), lengths)
    assert law.mean(law.prediction) == pytest.approx(said.mean(), abs=0.05)
    assert law.mean(law.prediction * law.size) == pytest.approx((said * LENGTHS).mean(), rel=1e-3)


def test_a_class_stands_for_its_mean_length(lengths: Path) -> None:
    law = predicted_law("class:class", LENGTHS.astype(float), lengths)
    short = LENGTHS[LENGTHS <= 60]
    assert law.prediction.min() == pytest.approx(short.mean())
    assert law.mean(law.prediction) == pytest.approx(LENGTHS.mean())
    assert len(np.unique(law.prediction)) == 3


def test_confusion_matrices_are_read_from_their_own_file_and_from_an_evaluation(tmp_path: Path) -> None:
    own, evaluation = tmp_path / "own.json", tmp_path / "evaluation.json"
    own.write_text(json.dumps({"edges": [0, 100, 300, 1000], "counts": [[8, 2, 0], [1, 3, 0], [0, 1, 1]]}))
    maps = {name: {"heatmap": {"max_tokens": 900, "counts": [[3, i], [1, 4]]}} for i, name in enumerate("ab")}
    evaluation.write_text(json.dumps({"arms": maps}))
    law = predicted_law(f"confusion:{own}", np.array([50.0]), own)
    assert dict(zip(law.prediction.tolist(), law.weight.tolist(), strict=True)) == pytest.approx(
        {50: 0.8, 200: 0.2}
    )
    assert read_confusion(evaluation, "b") == ([0.0, 450.0, 900.0], [[3, 1], [1, 4]])
    assert read_confusion(evaluation)[1] == [[3, 0], [1, 4]]
    with pytest.raises(ValueError, match="no arm 'c' in it; choose one of a, b"):
        read_confusion(evaluation, "c")


def test_the_capacity_of_a_benchmark_is_the_speed_of_a_replica(tmp_path: Path) -> None:
    requests = {"arrival_s": [0.0, 1.0], "prompt_tokens": [5, 5], "output_tokens": [20, 40]}
    results = tmp_path / "results.json"
    results.write_text(
        json.dumps(
            {"capacity": {"tokens_per_s": 500.0}, "arms": {"fcfs": {"runs": [{"requests": requests}]}}}
        )
    )
    d = planned(results, tmp_path / "out", "--slots", "4")
    assert d["service"]["tokens_per_s"] == 500
    assert d["arms"]["fcfs"]["at"]["latency_s"] > 30 * 4 / 500


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "how fast is a replica"),
        (("--tokens-per-s", "0"), "a replica must make tokens"),
        (("--tokens-per-s", "9", "--steps", "h200-8b"), "give one"),
        (("--steps", "h200-8b"), "--slots"),
        (("--steps", "nothing", "--slots", "4"), "no step model 'nothing'"),
        (("--tokens-per-s", "9", "--load", "-1"), "--load must be a positive number"),
        (("--tokens-per-s", "9", "--loads", "0.5,1.0"), "loads between 0 and 1"),
        (("--tokens-per-s", "9", "--arms", "trail-c0.8"), "one prediction a request"),
        (("--tokens-per-s", "9", "--arms", "fcfs,fcfs"), "each once"),
        (("--tokens-per-s", "9", "--arms", "fast"), "unknown policy"),
        (("--tokens-per-s", "9", "--predictions", "perfect"), "write one of exact"),
        (("--tokens-per-s", "9", "--predictions", "lognormal:x"), "lognormal:0.6"),
        (("--tokens-per-s", "9", "--predictions", "column:none"), "no column 'none'"),
        (("--tokens-per-s", "9", "--predictions", "confusion:none.json"), "cannot be read as JSON"),
        (("--tokens-per-s", "9", "--replicas", "0"), "--replicas must be at least 1"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(
    lengths: Path, tmp_path: Path, capsys: Any, words: tuple[str, ...], sentence: str
) -> None:
    assert plan("--lengths", lengths, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_line_that_holds_no_number_is_named(tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("output_tokens,said\n10,9\n20,many\n")
    with pytest.raises(ValueError, match=r"line 3: needs a number in said"):
        predicted_law("column:said", np.array([10.0, 20.0]), file)


def test_loads_are_sorted_and_told_apart() -> None:
    assert loads_from("0.9,0.5,0.9") == (0.5, 0.9)


def test_the_page_refers_to_nothing_outside_itself_and_has_no_script(lengths: Path, tmp_path: Path) -> None:
    d = planned(lengths, tmp_path / "out", "--tokens-per-s", "1000", "--slots", "8", "--target", "2")
    d["workload"]["lengths"] = "a <b>file</b>"
    page = render(d)
    assert_self_contained(page)
    assert "a &lt;b&gt;file" in page
    for name in d["arms"]:
        assert f"</span>{name}</td>" in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it_without_complaint_and_fetches_nothing(
    lengths: Path, tmp_path: Path, quiet_page: Callable[..., Any], scheme: str, width: int
) -> None:
    d = planned(lengths, tmp_path / "out", "--tokens-per-s", "1000", "--slots", "8", "--target", "2")
    file = tmp_path / "page.html"
    file.write_text(render({**d, "workload": {**d["workload"], "lengths": "a-long-name" * 20}}))
    with quiet_page(file, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert page.locator("figure svg").count() == 2
    assert not wide, "the page itself never scrolls sideways"


def test_policies_that_differ_in_c_alone_are_told_apart() -> None:
    styles = arm_styles(["fcfs", "trail-prompt-c0", "trail-prompt-c0.2", "trail-prompt-c1", "oracle-c1"])
    assert (
        len({style.light for style in styles.values()}) == len({style.dark for style in styles.values()}) == 5
    )
    one, other = (arm_styles([name])[name] for name in ("trail-prompt-c0.2", "trail-prompt"))
    assert one == other


def test_the_same_question_gets_the_same_answer() -> None:
    question = Question(rate_per_s=5.0, replicas=1, loads=(0.5,), target_s=None, seed=4)
    answers = [
        Study(lognormal_law([40.0, 200.0], 0.4), Service(1000.0, 4, ""), parse_plan_arms("fcfs,sjf")).answer(
            question
        )
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
