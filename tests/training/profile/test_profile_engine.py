"""vLLM's process is started, heard and ended properly; a stand-in for it takes a moment and not a minute."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trail.training.profile.engine import Engine, EngineError, EngineFacts, EngineSpec
from trail.wire.frames import FrameWriter
from trail.wire.names import ring_path

FACTS = {"vllm_version": "0.32.0", "dtype": "float32", "max_model_len": 64, "hidden_size": 8, "slots": 4}
SPEC = EngineSpec(
    args=("--model", "m"),
    local_model=True,
    layers=(1, 2),
    hidden_size=8,
    every=3,
    temperature=0.5,
    top_p=0.9,
    max_tokens=7,
)
STAND_IN = f"""
import json, os, socket, sys
spec = json.loads(sys.argv[1])
print("a line of its log", flush=True)
link = socket.socket(socket.AF_UNIX)
link.connect(spec["socket"])
def send(**message):
    link.sendall(json.dumps(message).encode() + b"\\n")
names = ("TRAIL_ENABLED", "TRAIL_LAYERS", "TRAIL_EXPORT_EVERY", "VLLM_PLUGINS", "HF_HUB_OFFLINE")
send(ready={FACTS})
for line in link.makefile("r"):
    for request in json.loads(line):
        if request["id"] == 13:
            sys.exit(3)
        if request["id"] == 14:
            send(failed="vLLM ended: no memory")
            sys.exit(1)
        env = dict((name, os.environ.get(name)) for name in names)
        send(finished=dict(id=request["id"], env=env, spec=spec))
"""


def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str = STAND_IN) -> Engine:
    command = Engine._command

    def stand_in(self: Engine, directory: Path) -> list[str]:
        words = command(self, directory)
        assert words[1:3] == ["-m", "trail.training.profile.engine_run"]
        return [sys.executable, "-c", script, words[3]]

    monkeypatch.setattr(Engine, "_command", stand_in)
    return Engine(SPEC, tmp_path / "vllm.log")


def heard(running: Engine, limit_s: float = 20.0) -> dict[str, Any]:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        message = running.message(0.1)
        if message is not None:
            return message
    raise AssertionError("no message came")


def test_requests_are_answered_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    with engine(tmp_path, monkeypatch) as running:
        assert running.wait_ready() == EngineFacts(**FACTS)
        running.submit([{"id": 1, "prompt": (5, 6), "seed": 0}, {"id": 2, "prompt": (7,), "seed": 1}])
        first, second = heard(running)["finished"], heard(running)["finished"]
        assert (first["id"], second["id"]) == (1, 2)
        assert running.message(0.01) is None
        directory = Path(first["spec"]["directory"])
        writer = FrameWriter.attach(ring_path(directory, 0), hidden_size=8, dtype="float32", layers=(1, 2))
        assert writer.spec.lossless
        assert writer.reader_interval_ns() == 0
        writer.close()
    assert not directory.exists()
    assert set(first["env"].pop("VLLM_PLUGINS").split(",")) == {"other", "trail"}
    assert first["env"] == {
        "TRAIL_ENABLED": "1", "TRAIL_LAYERS": "1,2", "TRAIL_EXPORT_EVERY": "3", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    spec = first["spec"]
    assert (spec["args"], spec["layers"]) == (["--model", "m"], [1, 2])
    assert (spec["temperature"], spec["top_p"], spec["max_tokens"]) == (0.5, 0.9, 7)


def test_an_engine_that_does_not_start_is_reported_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = "import sys; print('no such device', flush=True); sys.exit(1)"
    with (
        pytest.raises(EngineError, match=r"vLLM ended; its log .*vllm\.log ends with:\nno such device"),
        engine(tmp_path, monkeypatch, failing),
    ):
        pass


@pytest.mark.parametrize(
    ("request_id", "message"),
    [(13, r"vLLM ended; its log .* ends with:\na line of its log"), (14, r"vLLM ended: no memory \(all of")],
)
def test_an_engine_that_ends_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_id: int, message: str
) -> None:
    with engine(tmp_path, monkeypatch) as running:
        running.wait_ready()
        running.submit([{"id": request_id, "prompt": (5,), "seed": 0}])
        with pytest.raises(EngineError, match=message):
            heard(running)
        if request_id == 13:
            with pytest.raises(EngineError):
                running.submit([{"id": 1, "prompt": (5,) * 1_000_000, "seed": 0}])
