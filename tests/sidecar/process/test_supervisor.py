"""Process 1 of the sidecar's container: it outlives the sidecar, and ends when it is told to."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from trail.sidecar.process import fetch, supervisor
from trail.sidecar.process.fetch import FetchError, fetch_archive

# Short pauses; everything else is as in a container.
DRIVER = """
import sys
from trail.sidecar.process import supervisor
from trail.wire.backoff import Backoff
supervisor.RESTARTS = Backoff(0.05, 60.0)
sys.exit(supervisor.main(sys.argv[1:]))
"""
CHILD = """
import os, signal, sys, time
book = sys.argv[1]
def say(word):
    fd = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (word + "\\n").encode())
    os.close(fd)
def end(*_):
    say("told")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say(str(os.getpid()))
if sys.argv[2:] == ["dies"]:
    os._exit(3)
time.sleep(120)
"""


class Container:
    """A supervisor over a child that writes a book."""

    def __init__(self, tmp_path: Path, *words: str, command: list[str] | None = None) -> None:
        self.book = tmp_path / "book"
        child = command or [sys.executable, "-c", CHILD, str(self.book), *words]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, "--", *child], stderr=subprocess.PIPE, text=True
        )

    def lines(self) -> list[str]:
        return self.book.read_text().splitlines() if self.book.exists() else []

    def wait_for(self, count: int) -> list[str]:
        deadline = time.monotonic() + 60
        while len(self.lines()) < count:
            assert time.monotonic() < deadline, self.lines()
            assert self.process.poll() is None
            time.sleep(0.02)
        return self.lines()

    def stop(self) -> str:
        self.process.terminate()
        _, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return err


def test_a_sidecar_that_keeps_ending_is_started_again_and_again(tmp_path: Path) -> None:
    container = Container(tmp_path, "dies")
    assert len(set(container.wait_for(4))) == 4
    assert "exit code 3" in container.stop()


def test_a_killed_sidecar_comes_back(tmp_path: Path) -> None:
    container = Container(tmp_path)
    os.kill(int(container.wait_for(1)[0]), signal.SIGKILL)
    assert len(container.wait_for(2)) == 2
    assert "exit code -9" in container.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_ends_both(tmp_path: Path, number: int) -> None:
    container = Container(tmp_path)
    pid = int(container.wait_for(1)[0])
    container.process.send_signal(number)
    assert container.process.wait(60) == 0
    assert container.lines()[1:] == ["told"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_signal_during_a_pause_ends_it_at_once(tmp_path: Path) -> None:
    container = Container(tmp_path, command=["/does/not/exist"])
    assert container.process.stderr is not None
    assert "cannot be started" in container.process.stderr.readline()
    container.process.terminate()
    assert container.process.wait(60) == 0


@pytest.mark.parametrize(
    "argv",
    [[], ["--"], ["--fetch", "http://x", "--", "true"], ["--sha256", "0", "--into", "/x", "--", "true"]],
)
def test_bad_options_are_refused(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trail.sidecar.process.supervisor", *argv], capture_output=True, check=False
    )
    assert done.returncode == 2


def make_archive(folder: str = "", names: tuple[str, ...] = ("trail.json", "prompt/config.json")) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(folder + name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return raw.getvalue()


class Shop:
    """An HTTP server that gives one body to everybody."""

    def __init__(self) -> None:
        shop = self
        self.body = b""
        self.asked = 0
        self.refuse = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.asked += 1
                self.send_response(503 if shop.asked <= shop.refuse else 200)
                self.send_header("Content-Length", str(len(shop.body)))
                self.end_headers()
                self.wfile.write(shop.body)

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/p.tar.gz?signature=secret"


@pytest.fixture
def shop() -> Iterator[Shop]:
    found = Shop()
    yield found
    found.server.shutdown()
    found.server.server_close()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("folder", ["", "predictor/"])
def test_an_archive_is_put_in_place_whole(shop: Shop, tmp_path: Path, folder: str) -> None:
    shop.body = make_archive(folder)
    into = tmp_path / "artefact"
    fetch_archive(shop.url, digest(shop.body), into)
    assert (into / "prompt/config.json").read_text() == "prompt/config.json"
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]
    fetch_archive(shop.url, digest(shop.body), into)
    assert shop.asked == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"no archive", "no tar archive"),
        (make_archive()[:60], "no tar archive"),
        (make_archive(names=("other",)), "holds no trail.json"),
        (make_archive(names=("trail.json", "../outside")), "no tar archive"),
    ],
    ids=["no archive", "cut", "other files", "a path outside"],
)
def test_what_is_no_predictor_is_refused_and_leaves_nothing(
    shop: Shop, tmp_path: Path, body: bytes, says: str
) -> None:
    shop.body = body
    (tmp_path / "in").mkdir()
    with pytest.raises(FetchError, match=says) as error:
        fetch_archive(shop.url, digest(body), tmp_path / "in" / "artefact")
    assert "secret" not in str(error.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in"]


def test_another_digest_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.body = make_archive()
    with pytest.raises(FetchError, match="the policy says 00"):
        fetch_archive(shop.url, "00", tmp_path / "artefact")
    assert not list(tmp_path.iterdir())


def test_what_is_too_large_is_not_kept(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.body = make_archive()
    monkeypatch.setattr(fetch, "LARGEST_BYTES", 100)
    with pytest.raises(FetchError, match="larger than 100"):
        fetch_archive(shop.url, digest(shop.body), tmp_path / "artefact")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1:1/x"])
def test_what_cannot_be_had_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError):
        fetch_archive(url, "00", tmp_path / "artefact")
    with pytest.raises(FetchError, match="cannot put"):
        fetch_archive("http://127.0.0.1:1/x", "00", tmp_path / "no" / "artefact")


def test_the_supervisor_fetches_first_and_tries_again(shop: Shop, tmp_path: Path) -> None:
    shop.body, shop.refuse = make_archive(), 2
    into, book = tmp_path / "artefact", tmp_path / "book"
    options = ["--fetch", shop.url, "--sha256", digest(shop.body), "--into", str(into)]
    command = [sys.executable, "-c", CHILD, str(book)]
    process = subprocess.Popen([sys.executable, "-c", DRIVER, *options, "--", *command])
    deadline = time.monotonic() + 60
    while not book.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (into / "trail.json").is_file()
    assert shop.asked == 3
    process.terminate()
    assert process.wait(60) == 0


STARTS = """
import os, sys, time
book, ready = sys.argv[1], int(os.environ["TRAIL_READY_FD"])
def say(word):
    fd = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (word + "\\n").encode())
    os.close(fd)
say(str(os.getpid()))
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
os.write(ready, b".")
os.close(ready)
say("up")
time.sleep(120)
"""


def test_a_killed_sidecar_says_when_it_is_up_again(tmp_path: Path) -> None:
    """The first start of a pod is nobody's hindrance; each later one is beside a vLLM that serves."""
    book = tmp_path / "book"
    container = Container(tmp_path, command=[sys.executable, "-c", STARTS, str(book)])
    os.kill(int(container.wait_for(2)[0]), signal.SIGKILL)
    assert container.wait_for(4)[1::2] == ["up", "up"]
    time.sleep(3 * supervisor._POLL_S)
    said = container.stop()
    assert said.count("the sidecar is up") == 1


def test_what_an_earlier_life_left_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAIL_DIR", raising=False)
    assert not supervisor._been_here()
    monkeypatch.setenv("TRAIL_DIR", str(tmp_path))
    assert not supervisor._been_here()
    (tmp_path / "board-0.board").touch()
    assert supervisor._been_here()


def test_it_lives_on_where_nothing_can_be_seen_or_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container without /proc/stat, a process without descriptors left: told, and tried again."""

    class Stop:
        def is_set(self) -> bool:
            return False

        def wait(self, _seconds: float) -> bool:
            return False

    def nothing_left() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(supervisor, "idle_seconds", lambda: None)
    assert not supervisor._contended(None, 0.0)
    monkeypatch.setattr(supervisor.os, "pipe", nothing_left)
    said = supervisor._live(["true"], Stop(), beside_vllm=True, contended=True)  # type: ignore[arg-type]
    assert "Too many open files" in said


def test_a_child_that_cannot_be_watched_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sidecars would fight for one directory."""
    started: list[int] = []

    def fail(child: "subprocess.Popen[bytes]", *_: object) -> int:
        started.append(child.pid)
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(supervisor, "_wait", fail)
    said = supervisor._live([sys.executable, "-c", "import time; time.sleep(120)"], None,  # type: ignore[arg-type]
                            beside_vllm=False, contended=False)  # fmt: skip
    assert "a mistake of ours" in said
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
