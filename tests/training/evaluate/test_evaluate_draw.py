"""Answers come in any order and are put where they belong; a stand-in draws them in vLLM's place."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trail.serving.offline import OfflineEngine
from trail.training.evaluate.draw import DrawError, Drawn, draw

# Answers the last request first: request i has answers of i + 1 tokens, the first of them cut.
STAND_IN = """
import json, socket, sys
spec = json.loads(sys.argv[1])
link = socket.socket(socket.AF_UNIX)
link.connect(spec["socket"])
def send(**message):
    link.sendall(json.dumps(message).encode() + b"\\n")
send(ready=dict(vllm_version="0.32.0", dtype="float32", max_model_len=64, hidden_size=8, slots=4))
requests = json.loads(link.makefile("r").readline())
print(json.dumps([spec["args"], requests[0]["sampling"]]), flush=True)
for request in requests[::-1]:
    i, n = request["id"], request["sampling"]["n"]
    tokens = [[10 * i + j] * (i + 1) for j in range(n)]
    send(finished=dict(id=i, tokens=tokens, reasons=["length", "stop"][:n]))
link.recv(1)
"""


def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str = STAND_IN, **changes: Any) -> Drawn:
    command = OfflineEngine._command
    monkeypatch.setattr(
        OfflineEngine, "_command", lambda self: [sys.executable, "-c", script, command(self)[-1]]
    )
    options: dict[str, Any] = {"n": 2, "max_tokens": [5, 6, 7], "max_model_len": 64, "stop_token_ids": [2]}
    options |= {"seed": 9, "log": tmp_path / "vllm.log", "keep_tokens": True} | changes
    return draw(tmp_path, [(1,), (1, 2), (3,)], **options)


def test_answers_are_put_where_they_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    found = drawn(tmp_path, monkeypatch, progress=told.append)
    assert found.lengths.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert found.ended.tolist() == [[False, True]] * 3
    assert found.outputs() == [(0,), (1,), (10, 10), (11, 11), (20, 20, 20), (21, 21, 21)]
    assert told == [1, 2, 3]
    args, sampling = json.loads((tmp_path / "vllm.log").read_text())
    assert args[args.index("--seed") + 1] == "9"
    assert sampling == {"n": 2, "temperature": 1.0, "stop_token_ids": [2], "max_tokens": 5}


def test_the_same_question_is_answered_from_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.npz"
    first = drawn(tmp_path, monkeypatch, cached=kept)
    again = drawn(tmp_path, monkeypatch, "raise SystemExit(4)", cached=kept)
    assert again.outputs() == first.outputs()
    with pytest.raises(DrawError):
        drawn(tmp_path, monkeypatch, "raise SystemExit(4)", cached=kept, seed=10)


def test_a_failure_is_told_with_the_end_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "print('no such device', flush=True); raise SystemExit(4)"
    with pytest.raises(DrawError, match=r"vLLM ended with 4 and drew nothing; see .*\.log\nno such device"):
        drawn(tmp_path, monkeypatch, script)
