"""vLLM and the sidecar are started, watched and stopped together: real processes stand in for both."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trail.serving import stack as stack_module
from trail.serving.launch import Child, TrailSetup, free_port
from trail.serving.setup import ModelSource
from trail.serving.stack import ServerError, Stack

MODEL = ModelSource("m", "m", None, local=True)
TRAIL = TrailSetup(Path("/p"), 1, "trail")

DRIVER = """
import json, sys
from pathlib import Path
from trail.commands.serve import supervise
from trail.serving import stack
from trail.serving.launch import TrailSetup
from trail.serving.setup import ModelSource
from trail.wire.backoff import Backoff
spec = json.loads(sys.argv[1])
stack.RESTARTS = Backoff(0.05, 8.0)
stack.vllm_command = lambda *_: spec["vllm"]
stack.sidecar_command = lambda *_: spec["sidecar"]
trail = TrailSetup(Path("/p"), 1, "trail")
sys.exit(supervise(stack.Stack(ModelSource("m", "m", None, local=True), (), trail)))
"""

# Writes its pid when it starts and its name when SIGTERM reaches it; a child of its own ignores SIGTERM.
ACTOR = """
import os, signal, subprocess, sys, time
name, book = sys.argv[1], sys.argv[2]
def say(word):
    fd = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{word} {name} {os.getpid()}\\n".encode())
    os.close(fd)
def end(*_):
    say("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
if name == "vllm":
    grandchild = subprocess.Popen([sys.executable, "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"])
    name = f"vllm+{grandchild.pid}"
say("started")
time.sleep(120)
"""


class Served:
    """A supervisor over two actors, and the book that they write."""

    def __init__(self, tmp_path: Path, vllm: list[str] | None = None) -> None:
        self.book = tmp_path / "book"
        actor = [sys.executable, "-c", ACTOR]
        spec = {
            "vllm": vllm or [*actor, "vllm", str(self.book)],
            "sidecar": [*actor, "sidecar", str(self.book)],
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(spec)], stderr=subprocess.PIPE
        )

    def entries(self, word: str, name: str) -> list[list[str]]:
        lines = self.book.read_text().splitlines() if self.book.exists() else []
        return [x.split() for x in lines if x.startswith(f"{word} {name}")]

    def wait_for(self, word: str, name: str, count: int = 1) -> list[list[str]]:
        deadline = time.monotonic() + 60
        while len(found := self.entries(word, name)) < count:
            assert time.monotonic() < deadline, f"{word} {name} never came: {self.book.read_text()}"
            time.sleep(0.05)
        return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_vllm_first_then_the_sidecar_and_leaves_nobody(tmp_path: Path, number: int) -> None:
    served = Served(tmp_path)
    vllm = served.wait_for("started", "vllm")[0]
    sidecar = served.wait_for("started", "sidecar")[0]
    served.process.send_signal(number)
    assert served.process.wait(60) == 0
    stops = [
        x.split()[1].split("+")[0] for x in served.book.read_text().splitlines() if x.startswith("stopped")
    ]
    assert stops == ["vllm", "sidecar"]
    grandchild = int(vllm[1].split("+")[1])
    assert not [p for p in (int(vllm[2]), int(sidecar[2]), grandchild) if alive(p)]


def test_a_killed_sidecar_comes_back_and_vllm_is_not_touched(tmp_path: Path) -> None:
    served = Served(tmp_path)
    vllm = served.wait_for("started", "vllm")[0]
    for round_ in (1, 2):
        pid = int(served.wait_for("started", "sidecar", round_)[-1][2])
        os.kill(pid, signal.SIGKILL)
    served.wait_for("started", "sidecar", 3)
    assert alive(int(vllm[2]))
    assert len(served.entries("started", "vllm")) == 1
    served.process.terminate()
    assert served.process.wait(60) == 0
    assert served.process.stderr is not None
    assert b"the sidecar ended with exit code -9" in served.process.stderr.read()


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_when_vllm_ends_its_exit_code_is_ours_and_the_sidecar_stops(
    tmp_path: Path, ending: str, code: int
) -> None:
    gate = tmp_path / "book"
    script = f"""
import os, sys, time
while not (os.path.exists({str(gate)!r}) and "started sidecar" in open({str(gate)!r}).read()):
    time.sleep(0.05)
{ending}
"""
    served = Served(tmp_path, [sys.executable, "-c", script])
    assert served.process.wait(60) == code
    assert served.entries("stopped", "sidecar")


def test_what_a_stubborn_child_started_may_clean_up_before_the_group_is_killed(tmp_path: Path) -> None:
    """vLLM's resource tracker gives shared memory back on its way out; a group killed at once leaves it."""
    cleaned, ready = tmp_path / "cleaned", tmp_path / "ready"
    inner = f"trap 'touch {cleaned}; exit' TERM; touch {ready}; while :; do sleep 0.05; done"
    # Not '' for the outer one: an ignored signal is inherited and would make the inner trap void.
    outer = f'trap : TERM; bash -c "{inner}" & while :; do sleep 0.05; done'
    child = Child("stubborn", ["bash", "-c", outer], dict(os.environ))
    deadline = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child.stop(0.2) == -signal.SIGKILL
    assert cleaned.exists()


# Answers what it is asked on the port that it is given.
SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""
ENDS = "print('no such device'); raise SystemExit(3)"
SLEEPS = "import time; time.sleep(120)"


def stand_ins(monkeypatch: pytest.MonkeyPatch, vllm: str, sidecar: str = SLEEPS) -> None:
    monkeypatch.setattr(
        stack_module, "vllm_command", lambda _model, args: [sys.executable, "-c", vllm, *args]
    )
    monkeypatch.setattr(stack_module, "sidecar_command", lambda *_: [sys.executable, "-c", sidecar])


def test_a_server_is_ready_when_it_answers_and_gone_when_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(monkeypatch, SERVER)
    with Stack(MODEL, log=tmp_path / "0-stock", port=free_port()) as stack:
        stack.until_ready(60)
        assert stack.sidecar is None
        with pytest.raises(ServerError, match="server 0-stock has no sidecar"):
            _ = stack.control
        assert stack.vllm is not None
        assert stack.tend() is None
        pid = stack.vllm.pid
    assert not alive(pid)
    assert (tmp_path / "0-stock-vllm.log").is_file()


@pytest.mark.parametrize(
    ("vllm", "limit_s", "message"),
    [
        (ENDS, 60, r"vLLM of server s ended with exit code 3\n.*s-vllm\.log:\nno such device"),
        (SLEEPS, 0.1, r"server s is not ready after 0\.1 s; see --start-timeout\n.*s-vllm\.log"),
    ],
)
def test_a_server_that_is_not_ready_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vllm: str, limit_s: float, message: str
) -> None:
    stand_ins(monkeypatch, vllm)
    with (
        Stack(MODEL, log=tmp_path / "s", port=free_port()) as stack,
        pytest.raises(ServerError, match=message),
    ):
        stack.until_ready(limit_s, "; see --start-timeout")


def test_a_sidecar_that_is_not_heard_of_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch, SERVER)
    monkeypatch.setattr(stack_module, "_TRAIL_LIMIT_S", 0.1)
    with Stack(MODEL, (), TRAIL, log=tmp_path / "s", port=free_port()) as stack:
        with pytest.raises(
            ServerError, match="TRAIL did not come up on server s: the sidecar's control service"
        ):
            stack.until_ready(60)
        assert stack.env["TRAIL_DIR"] == str(stack.directory)
        assert stack.directory.is_dir()
    assert not stack.directory.exists()


def test_where_vllm_cannot_start_no_sidecar_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch, SERVER)
    monkeypatch.setattr(stack_module, "vllm_command", lambda *_: ["/no/such/program"])
    stack = Stack(MODEL, (), TRAIL, log=tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        stack.start()
    assert stack.sidecar is not None
    assert not alive(stack.sidecar.pid)
    assert not stack.directory.exists()
