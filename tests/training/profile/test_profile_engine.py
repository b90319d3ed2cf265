"""What a recording's engine is started with: the environment of its export, and the ring it exports to."""

import json
import sys
from pathlib import Path

import pytest

from trail.serving.offline import OfflineEngine
from trail.training.profile.engine import EngineSpec, recording_engine
from trail.wire.frames import FrameWriter
from trail.wire.names import ring_path

SPEC = EngineSpec(args=("--model", "m"), local_model=True, layers=(1, 2), hidden_size=8, every=3)
STAND_IN = """
import json, os, socket, sys
spec = json.loads(sys.argv[1])
link = socket.socket(socket.AF_UNIX)
link.connect(spec["socket"])
names = ("TRAIL_DIR", "TRAIL_ENABLED", "TRAIL_LAYERS", "TRAIL_EXPORT_EVERY", "VLLM_PLUGINS", "HF_HUB_OFFLINE")
print(json.dumps(dict(spec=spec, env=dict((name, os.environ.get(name)) for name in names))), flush=True)
facts = dict(vllm_version="0.32.0", dtype="float32", max_model_len=64, hidden_size=8, slots=4)
link.sendall(json.dumps(dict(ready=facts)).encode() + b"\\n")
link.recv(1)
"""


def test_export_is_on_and_the_ring_waits_for_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    command = OfflineEngine._command
    monkeypatch.setattr(
        OfflineEngine, "_command", lambda self: [sys.executable, "-c", STAND_IN, command(self)[3]]
    )
    log = tmp_path / "vllm.log"
    with recording_engine(SPEC, log) as (engine, ring):
        assert engine.wait_ready(ring.beat).slots == 4
        told = json.loads(log.read_text())
        directory = Path(told["spec"]["directory"])
        writer = FrameWriter.attach(ring_path(directory, 0), hidden_size=8, dtype="float32", layers=(1, 2))
        assert writer.spec.lossless
        assert writer.reader_interval_ns() == 0
        writer.close()
    assert not directory.exists()
    assert told["env"] == {
        "TRAIL_DIR": str(directory), "TRAIL_ENABLED": "1", "TRAIL_LAYERS": "1,2", "TRAIL_EXPORT_EVERY": "3",
        "VLLM_PLUGINS": "other,trail", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    assert told["spec"]["args"] == ["--model", "m"]
    assert (told["spec"]["whole_prompts"], told["spec"]["layers"]) == (True, [1, 2])
