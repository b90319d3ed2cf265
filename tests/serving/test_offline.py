"""vLLM's process is started, heard and ended properly; a stand-in for it takes a moment and not a minute."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trail.serving.launch import shared_directory
from trail.serving.offline import Answers, EngineError, EngineFacts, OfflineEngine

FACTS = {"vllm_version": "0.32.0", "dtype": "float32", "max_model_len": 64, "hidden_size": 8, "slots": 4}
# Answers with the tokens of the prompt; two requests end it.
STAND_IN = f"""
import json, socket, sys
spec = json.loads(sys.argv[1])
print("a line of its log", spec["args"], spec["whole_prompts"], spec["layers"], flush=True)
link = socket.socket(socket.AF_UNIX)
link.connect(spec["socket"])
def send(**message):
    link.sendall(json.dumps(message).encode() + b"\\n")
send(ready={FACTS})
for line in link.makefile("r"):
    for request in json.loads(line):
        if request["id"] == 13:
            sys.exit(3)
        if request["id"] == 14:
            send(failed="vLLM ended: no memory")
            sys.exit(1)
        n = request["sampling"]["n"]
        send(finished=dict(id=request["id"], tokens=[request["prompt"]] * n, reasons=["stop"] * n))
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with shared_directory() as path:
        yield path


def request(number: int, *prompt: int, n: int = 1) -> dict[str, object]:
    return {"id": number, "prompt": prompt, "sampling": {"n": n}}


def engine(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str = STAND_IN) -> OfflineEngine:
    command = OfflineEngine._command

    def stand_in(self: OfflineEngine) -> list[str]:
        words = command(self)
        assert words[1:3] == ["-m", "trail.serving.offline_run"]
        return [sys.executable, "-c", script, words[3]]

    monkeypatch.setattr(OfflineEngine, "_command", stand_in)
    return OfflineEngine(("--model", "m"), os.environ, directory, directory / "vllm.log", layers=(1, 2))


def heard(running: OfflineEngine, limit_s: float = 90.0) -> Answers:
    answers = running.answers(limit_s)
    assert answers is not None, "no answers came"
    return answers


def test_requests_are_answered_and_nothing_is_left(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    with engine(directory, monkeypatch) as running:
        assert running.wait_ready(lambda: looks.append(None)) == EngineFacts(**FACTS)
        assert looks
        running.submit([request(1, 5, 6), request(2, 7, n=3)])
        assert heard(running) == Answers(1, [[5, 6]], ["stop"])
        assert heard(running) == Answers(2, [[7]] * 3, ["stop"] * 3)
        assert running.answers(0.01) is None
        assert [answers.id for answers in running.run([request(i, 5) for i in range(3, 9)])] == [*range(3, 9)]
        assert running.exit_code() is None
    assert running.exit_code() == 0, "it ends with the connection"
    assert "a line of its log ['--model', 'm'] False [1, 2]" in (directory / "vllm.log").read_text()


def test_an_engine_that_answers_nothing_for_too_long_is_an_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = STAND_IN.replace("send(finished", "(lambda **_: None)(finished")
    with engine(directory, monkeypatch, silent) as running:
        running.wait_ready()
        with pytest.raises(EngineError, match=r"vLLM answered nothing for 0\.05 s"):
            list(running.run([request(1, 5)], 0.05))


def test_an_engine_that_does_not_start_is_reported_with_its_log(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = "import sys; print('no such device', flush=True); sys.exit(1)"
    with (
        pytest.raises(EngineError, match=r"vLLM ended; its log .*vllm\.log ends with:\nno such device"),
        engine(directory, monkeypatch, failing),
    ):
        pass


@pytest.mark.parametrize(
    ("request_id", "message"),
    [(13, r"vLLM ended; its log .* ends with:\na line of its log"), (14, r"vLLM ended: no memory \(all of")],
)
def test_an_engine_that_ends_is_reported(
    directory: Path, monkeypatch: pytest.MonkeyPatch, request_id: int, message: str
) -> None:
    with engine(directory, monkeypatch) as running:
        running.wait_ready()
        running.submit([request(request_id, 5)])
        with pytest.raises(EngineError, match=message):
            heard(running)
        if request_id == 13:
            with pytest.raises(EngineError):
                running.submit([request(1, *[5] * 1_000_000)])
