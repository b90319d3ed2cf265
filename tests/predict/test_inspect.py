"""`trail inspect` shows a predictor that can be used and says what is wrong with one that cannot."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trail.commands import inspect as command


def inspect(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_table_names_what_a_user_looks_for(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(saved) == 0
    rows = dict(line.split("  ", maxsplit=1) for line in capsys.readouterr().out.splitlines())
    shown = {name.strip(): value.strip() for name, value in rows.items()}
    assert shown["model"] == "example/small (abc123)"
    assert shown["layer"] == "2 of 4, hidden size 8"
    assert shown["bins"] == "4, from 0 to 64 tokens"
    assert shown["prompt predictor"] == "yes"
    assert shown["metrics.probe.mae_tokens"] == "7.25"
    assert shown["recipe.epochs"] == "3"


def test_json_is_the_manifest(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(saved, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((saved / "trail.json").read_text())


def test_a_predictor_that_cannot_be_used_is_one_sentence_and_exit_code_2(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (saved / "probe.safetensors").read_bytes()
    (saved / "probe.safetensors").write_bytes(content[:-1])
    assert inspect(saved) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "probe.safetensors has" in captured.err


def test_the_model_is_checked_where_one_is_named(
    saved: Path, model_dir: Path, make_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(saved, "--model", model_dir) == 0
    assert inspect(saved, "--model", make_model("other", vocab_size=21)) == 2
    assert "vocab_size 21 instead of 20" in capsys.readouterr().err
