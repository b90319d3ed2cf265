"""Black-box mode: from prompts and lengths alone to a predictor and a verdict, through the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from recording_maker import ARCHITECTURE, Truth, make_recording, settings_of, some_prompts

from trail import cli
from trail.predict import artefact
from trail.predict.fingerprint import describe_model

Lines = list[dict[str, object]]


def telling_lines(n: int, seed: int) -> Lines:
    """Distinct prompts whose tokens say how long both answers get, and a kind."""
    rng = np.random.default_rng(seed)
    lines: Lines = []
    for i in range(n):
        long = bool(rng.integers(2))
        tokens = (rng.integers(0, 25, 8) + 25 * long).tolist()
        output = (rng.integers(50, 60, 2) if long else rng.integers(5, 9, 2)).tolist()
        lines.append({"prompt_token_ids": tokens, "output_tokens": output, "kind": f"k{i % 2}"})
    lines[0]["finish_reason"] = ["length", "stop"]
    return lines


def written(path: Path, lines: Lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("model")
    (path / "config.json").write_text(json.dumps(ARCHITECTURE))
    return path


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("lengths") / "training.jsonl", telling_lines(800, seed=1))


@pytest.fixture(scope="module")
def predictor(training: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("predictors") / "blind"
    words = ["train", str(training), "--model", str(model), "--out", str(out), "--encoder", "small"]
    assert cli.main([*words, "--threads", "1"]) == 0
    return out


def test_lengths_alone_give_a_prompt_predictor_that_tells_long_from_short(predictor: Path) -> None:
    loaded = artefact.load(predictor)
    assert loaded.probe is None
    assert loaded.prompt is not None
    held_out = loaded.manifest.metrics["held_out"]
    assert held_out["mae_prompt_tokens"] < 0.3 * held_out["mae_constant_tokens"]
    assert "mae_refined_tokens" not in held_out
    assert 20 < loaded.manifest.mean_output_tokens < 40


def test_the_verdict_compares_the_arms_that_need_no_hidden_states(
    predictor: Path, training: Path, tmp_path: Path
) -> None:
    test = written(tmp_path / "test.jsonl", telling_lines(60, seed=2))
    words = ["evaluate", str(predictor), "--recording", str(test), "--training", str(training)]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "evaluation.json").read_text())
    arms = document["arms"]
    assert list(arms) == ["constant", "position", "prompt", "prompt-countdown"]
    assert arms["prompt-countdown"]["mae"] < 0.3 * arms["constant"]["mae"]
    assert set(arms["prompt"]["by_kind"]) == {"k0", "k1"}
    assert document["test"]["censored_left_out"] == 1
    assert "prompt-countdown against position" in document["differences"]
    assert "prompt-countdown" in (tmp_path / "report.html").read_text()


def test_a_recording_of_the_same_model_judges_it_too(tmp_path: Path, model: Path) -> None:
    prompts = some_prompts(60, seed=3)
    log = [{"prompt_token_ids": list(p.token_ids), "output_tokens": 1 + len(p.token_ids)} for p in prompts]
    words = ["train", str(written(tmp_path / "log.jsonl", log)), "--model", str(model)]
    assert cli.main([*words, "--out", str(tmp_path / "p"), "--encoder", "small", "--bins", "4"]) == 0
    other = some_prompts(40, seed=5)
    settings = settings_of(other, samples=2, shard_requests=64, model=describe_model(model))
    make_recording(tmp_path / "other", other, Truth(settings, 6))
    words = ["evaluate", str(tmp_path / "p"), "--recording", str(tmp_path / "other"), "--out", str(tmp_path)]
    assert cli.main([*words, "--training", str(tmp_path / "log.jsonl")]) == 0
    assert "prompt" in json.loads((tmp_path / "evaluation.json").read_text())["arms"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"output_tokens": None}, "line 2: needs output_tokens, a positive whole number"),
        ({"output_tokens": 0}, "line 2: needs output_tokens, a positive whole number"),
        ({"output_tokens": [3, 4], "finish_reason": ["stop"]}, "line 2: 2 output_tokens need as many"),
        ({"prompt_token_ids": [50]}, "line 2: token 50 is outside the model's vocabulary of 50"),
        ({"prompt_token_ids": None}, "line 2: needs prompt_token_ids or prompt"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], says: str
) -> None:
    lines = telling_lines(3, seed=1)
    lines[1] |= change
    file = written(tmp_path / "lengths.jsonl", lines)
    assert cli.main(["train", str(file), "--model", str(model), "--out", str(tmp_path / "p")]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give --model DIRECTORY"),
        (["--model", "MODEL", "--layers", "1"], "has no layers"),
        (["--model", "MODEL", "--no-prompt"], "nothing to train but a prompt predictor"),
        (["--model", "/no/such/model"], "no model config"),
    ],
)
def test_what_cannot_be_trained_from_lengths_is_said(
    training: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    given = [str(model) if word == "MODEL" else word for word in words]
    assert cli.main(["train", str(training), "--out", str(tmp_path / "p"), *given]) == 2
    assert says in capsys.readouterr().err


def test_texts_without_a_tokenizer_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "texts.jsonl", [{"prompt": "hello", "output_tokens": 3}])
    assert cli.main(["train", str(file), "--model", str(model), "--out", str(tmp_path / "p")]) == 2
    assert "tokenizer" in capsys.readouterr().err
