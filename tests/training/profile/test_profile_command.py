"""The command says what it does, refuses in one line what cannot be recorded, goes on where it stopped."""

import argparse
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine

from trail.commands import profile as command
from trail.demo import demo_model_dir
from trail.demo.corpus import demo_prompts
from trail.serving.setup import SetupError
from trail.training.profile.job import parse_layers, prepare
from trail.training.recording import Recording
from trail.wire.frames import FrameReader

Trail = Callable[..., int]
SMALL = ("--limit", "6", "--samples", "2", "--shard-requests", "4", "--max-tokens", "20")


def parsed(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.configure(parser)
    args, extra = parser.parse_known_args([str(word) for word in words])
    args.vllm_args = [word for word in extra if word != "--"]
    return args


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trail:
    """Runs `trail profile` with an engine that is none; `faults` as in FakeEngine."""

    def run(*words: object, out: str = "r", faults: dict[str, Any] | None = None) -> int:
        @contextlib.contextmanager
        def engine(spec: Any, _log: Path) -> Iterator[tuple[FakeEngine, FrameReader]]:
            fake = FakeEngine(
                tmp_path / "ring",
                layers=spec.layers,
                hidden_size=spec.hidden_size,
                every=spec.every,
                **faults or {},
            )
            with fake:
                yield fake, fake.ring

        monkeypatch.setattr(command, "recording_engine", engine)
        return command.run(parsed(*words, "--out", tmp_path / out))

    return run


def test_a_recording_of_the_demo(profile: Trail, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile("demo", "--prompts", "demo", *SMALL, "--max-num-seqs", "4") == 0
    said = capsys.readouterr().out
    assert "recording 12 requests (6 prompts, 2 each), layers 1, 2, 3, in 3 shards" in said
    assert "shard-00002 of 3: 12 of 12 requests" in said
    assert said.splitlines()[-1].startswith(f"{tmp_path / 'r'}: 12 requests, ")
    recording = Recording.open(tmp_path / "r")
    assert recording.layers == (1, 2, 3)
    assert recording.kinds is not None
    assert (recording.model_id, recording.max_model_len, recording.every) == ("demo", 64, 1)
    assert recording.settings.vllm_args == ("--max-num-seqs", "4")
    assert recording.model.hidden_size == recording.hidden_size == 128
    benchmarked = {tuple(p.token_ids) for p in demo_prompts(500, 0)}
    assert not benchmarked & set(recording.prompts)


def test_an_interrupted_run_says_how_to_go_on(
    profile: Trail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert profile("demo", "--prompts", "demo", *SMALL, faults={"interrupt": 7}) == 130
    said = capsys.readouterr().err
    assert f"interrupted; 1 of 3 shards are recorded in {tmp_path / 'r'}, the same command goes on" in said
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers

    assert profile("demo", "--prompts", "demo", *SMALL, "--seed", "1") == 2
    assert "was begun with other settings: seed was 0 and is 1" in capsys.readouterr().err
    assert profile("demo", "--prompts", "demo", *SMALL) == 0
    assert "in 3 shards; 1 are there already" in capsys.readouterr().out
    assert profile("demo", "--prompts", "demo", *SMALL, faults={"die": 0}) == 0
    assert "is complete" in capsys.readouterr().out
    profile("demo", "--prompts", "demo", *SMALL, out="whole")
    assert Recording.open(tmp_path / "r").sha256 == Recording.open(tmp_path / "whole").sha256


def test_signals_interrupt_once(profile: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = []

    def answers(_self: object, _timeout_s: float) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal must have interrupted")

    def stopping(self: FakeEngine) -> None:
        signal.raise_signal(signal.SIGINT)
        ignored.append(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)

    monkeypatch.setattr(FakeEngine, "answers", answers)
    monkeypatch.setattr(FakeEngine, "close", stopping)
    assert profile("demo", "--prompts", "demo", *SMALL) == 130
    assert ignored == [True]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"die": 6}, "vLLM ended; 1 of 3 shards are recorded"),
        ({"abort": 6}, "ended request 6 with 'abort'"),
    ],
)
def test_a_failed_engine_is_exit_code_1(
    profile: Trail, fault: dict[str, int], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile("demo", "--prompts", "demo", *SMALL, faults=fault) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_disk_that_fills_up_says_what_is_kept(
    profile: Trail, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trail.training.recording.spool.Spool.add", full)
    assert profile("demo", "--prompts", "demo", *SMALL) == 1
    assert "is full; put it right and give the same command again; 0 of 3" in capsys.readouterr().err


def test_prompts_beyond_the_context_are_counted_and_left_out(
    profile: Trail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    lengths = (3, 63, 64, 70)
    file.write_text("".join(json.dumps({"prompt_token_ids": [5] * n}) + "\n" for n in lengths))
    assert profile("demo", "--prompts", file, *SMALL) == 0
    assert "prompts: 2 left out, beyond the context of 64 tokens" in capsys.readouterr().out
    recording = Recording.open(tmp_path / "r")
    assert [len(p) for p in recording.prompts] == [3, 63]
    assert recording.kinds is None
    assert recording.requests.output_tokens[2:].tolist() == [1, 1]
    file.write_text(json.dumps({"prompt_token_ids": [5] * 64}) + "\n")
    assert profile("demo", "--prompts", file, *SMALL, out="none") == 2
    assert "all 1 prompts are beyond the context of 64 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/no/such/model", "--prompts", "demo"], "no model at '/no/such/model'"),
        (["owner/model-that-is-nowhere", "--prompts", "x"], "fetch it first (hf download owner/model-that"),
        (["demo", "--prompts", "/no/such/prompts"], "prompts /no/such/prompts: cannot be read"),
        (["demo", "--prompts", "demo", "--layers", "2,4"], "no layer 4; this model has hidden_states[0] to"),
        (["demo", "--prompts", "demo", "--layers", "most"], "give all, or numbers like 4,5"),
        (["demo", "--prompts", "demo", "--samples", "0"], "--samples must be at least 1, got 0"),
        (["demo", "--prompts", "demo", "--shard-requests", "0"], "--shard-requests must be at least 1"),
        (["demo", "--prompts", "demo", "--limit", "0"], "--limit must be at least 1"),
        (["demo", "--prompts", "demo", "--seed", "-1"], "--seed must be at least 0"),
        (["demo", "--prompts", "demo", "--top-p", "0"], "--top-p above 0 and at most 1"),
        (["demo", "--prompts", "demo", "--temperature", "nan"], "--temperature must be at least 0"),
        (["demo", "--prompts", "demo", "--temperature", "0"], "give --samples 1"),
        (["demo", "--prompts", "demo", "--enable-prefix-caching"], "leave out --enable-prefix-caching"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    profile: Trail, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(*words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_demo_prompts_are_the_demo_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((demo_model_dir() / "config.json").read_bytes())
    with pytest.raises(SetupError, match="--prompts demo are the demo model's"):
        prepare(parsed(tmp_path, "--prompts", "demo", "--out", tmp_path / "r"))


@pytest.mark.parametrize(
    ("text", "layers", "expected"),
    [
        ("all", 4, (1, 2, 3)),
        ("all", 65, tuple(range(1, 65))),
        ("3,0,3", 4, (0, 3)),
        ("5", 80, (5,)),
    ],
)
def test_layers(text: str, layers: int, expected: tuple[int, ...]) -> None:
    assert parse_layers(text, layers) == expected


def test_more_layers_than_a_pass_takes_are_refused_with_a_choice_that_works() -> None:
    with pytest.raises(SetupError, match="more than the 64") as caught:
        parse_layers("all", 81)
    suggested = str(caught.value).rsplit("--layers ", 1)[1]
    assert 30 < len(parse_layers(suggested, 81)) <= 64
    with pytest.raises(SetupError, match="--layers all: no layers"):
        parse_layers("all", 1)


def test_the_engine_gets_the_users_arguments_over_the_models(profile: Trail) -> None:
    job = prepare(
        parsed(
            "demo", "--prompts", "demo", "--out", "r", "--limit", "2", "--dtype", "bfloat16", "--every", "3"
        )
    )
    words = list(job.engine.args)
    assert words[:2] == ["--model", str(demo_model_dir())]
    assert words.count("--dtype") == 1
    assert words[words.index("--dtype") + 1] == "bfloat16"
    assert (job.engine.every, job.engine.layers, job.engine.hidden_size) == (3, (1, 2, 3), 128)
