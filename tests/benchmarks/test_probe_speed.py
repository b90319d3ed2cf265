"""The probe's timing says of every batch what took how long, and in which arithmetic."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.predictors.probe_speed import main
from trail.predict.first_layer import ARITHMETICS


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(out: Path, *words: str) -> dict[str, list[dict[str, float | str]]]:
    assert main(["--hidden", "64", "--batches", "1", "8", "--out", str(out), *words]) == 0
    document = json.loads(out.read_text())
    assert document["hidden"] == 64
    assert document["host"]["cpus"] >= 1
    assert set(document["training_rows_per_s"]) == set(document["threads"])
    assert min(document["training_rows_per_s"].values()) > 0
    found: dict[str, list[dict[str, float | str]]] = document["threads"]
    return found


def test_every_batch_is_timed_beside_both_products(tmp_path: Path) -> None:
    found = run(tmp_path / "deep" / "speed.json", "--threads", "1")
    assert [point["batch"] for point in found["1"]] == [1, 8]
    for point in found["1"]:
        assert point["arithmetic"] in ARITHMETICS
        assert point["us_per_sample"] > 0
        assert point["of_matmul"] == min(point["of_matmul_float32"], point["of_matmul_bfloat16"])


def test_the_arithmetic_asked_for_is_the_one_timed(tmp_path: Path) -> None:
    found = run(tmp_path / "speed.json", "--threads", "1", "--arithmetic", "bfloat16")
    assert {point["arithmetic"] for point in found["1"]} == {"bfloat16"}
    assert {point["dtype"] for point in found["1"]} == {"bfloat16"}


@pytest.mark.parametrize("words", [["--hidden", "0"], ["--threads", "-1"], ["--batches", "many"]])
def test_numbers_that_are_none_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert words[0] in capsys.readouterr().err
