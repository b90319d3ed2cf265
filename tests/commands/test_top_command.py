"""`trail top` against real gRPC servers: present, absent, old, lost and back; and the terminal it leaves."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from snapshots import snapshot

from trail.cli import main
from trail.commands.top.command import sidecars_here
from trail.commands.top.source import AddressError, SnapshotSource, ask_all, target
from trail.wire.v1 import trail_pb2, trail_pb2_grpc


class Answers(trail_pb2_grpc.ObserveServicer):
    def __init__(self) -> None:
        self.asked: list[int] = []

    def Snapshot(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request.requests)
        return snapshot(runs=2, waits=3)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, Any]]]:
    """Starts a sidecar's gRPC server (by default on any free port); without a service it is an old one."""
    started: list[Any] = []

    def start(servicer: Any = None, address: str = "127.0.0.1:0") -> tuple[str, Any]:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        if servicer is not None:
            trail_pb2_grpc.add_ObserveServicer_to_server(servicer, server)
        port = server.add_insecure_port(address)
        server.start()
        started.append(server)
        return (f"127.0.0.1:{port}" if address.endswith(":0") else address), server

    yield start
    for server in started:
        server.stop(None).wait(5)


def test_addresses() -> None:
    assert target("pod-7.ns:9500") == "pod-7.ns:9500"
    assert target("/dev/shm/trail") == "unix:/dev/shm/trail/sidecar.sock"
    assert target("unix:/x/y.sock") == "unix:/x/y.sock"
    for bad in ("pod", ":80", "pod:", "pod:70000", "pod:http"):
        with pytest.raises(AddressError, match="write HOST:PORT"):
            target(bad)


def test_without_an_address_the_sidecars_of_this_machine_are_found(tmp_path: Path) -> None:
    beside = tmp_path / "trail"
    assert sidecars_here({}, beside) == [str(beside)]
    for name in ("trail-b", "trail-a", "other", "trail-without"):
        (tmp_path / name).mkdir()
    for name in ("trail-b", "trail-a", "other"):
        (tmp_path / name / "sidecar.sock").touch()
    assert sidecars_here({}, beside) == [str(tmp_path / "trail-a"), str(tmp_path / "trail-b")]
    assert sidecars_here({"TRAIL_DIR": "/x/y"}, beside) == ["/x/y"]


def test_once_prints_one_frame(
    serve: Callable[..., tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers()
    address, _ = serve(answers)
    assert main(["top", address, "--once"]) == 0
    out, err = capsys.readouterr()
    assert "2 running, 3 waiting" in out
    assert err == ""
    assert answers.asked == [200]


def test_a_frame_can_be_kept_as_a_picture(serve: Callable[..., tuple[str, Any]], tmp_path: Path) -> None:
    address, _ = serve(Answers())
    assert main(["top", address, "--svg", str(tmp_path / "top.svg")]) == 0
    picture = (tmp_path / "top.svg").read_text()
    assert picture.startswith("<svg")
    assert "wave-0" in picture
    assert "url(http" not in picture.replace('"', "")
    assert main(["top", address, "--svg", str(tmp_path / "none" / "top.svg")]) == 1


def test_a_shared_directory_is_an_address(
    serve: Callable[..., tuple[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(Answers(), f"unix:{tmp_path}/sidecar.sock")
    assert main(["top", str(tmp_path), "--once"]) == 0
    assert "demo-0" in capsys.readouterr().out


def test_no_sidecar_and_an_old_one_are_told_apart(
    serve: Callable[..., tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = serve()
    free, gone = serve(Answers())
    gone.stop(None).wait(5)
    assert main(["top", old, free, "--once"]) == 1
    err = capsys.readouterr().err
    assert f"trail top: the sidecar at {old} is older than this command" in err
    assert f"trail top: no sidecar at {free}: start one" in err
    assert "Traceback" not in err


def test_one_that_answers_is_shown_beside_one_that_does_not(
    serve: Callable[..., tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    there, _ = serve(Answers())
    old, _ = serve()
    assert main(["top", there, old, "--once"]) == 0
    out = capsys.readouterr().out
    assert "2 running, 3 waiting" in out
    assert "is older than this command" in out


def test_a_lost_sidecar_keeps_its_last_snapshot_and_comes_back(
    serve: Callable[..., tuple[str, Any]],
) -> None:
    address, server = serve(Answers())
    source = SnapshotSource(address)
    try:
        assert ask_all([source])[0].trouble == ""
        server.stop(None).wait(5)
        (lost,) = ask_all([source])
        assert lost.snapshot is not None
        assert lost.trouble == f"lost the sidecar at {address}; trying again"
        serve(Answers(), address)
        deadline = time.monotonic() + 90
        while (reading := ask_all([source])[0]).trouble and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reading.trouble == ""
        assert reading.age_s < lost.age_s + 20
    finally:
        source.close()


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "nowhere"]) == 2
    assert main(["top", "h:1", "--every", "0"]) == 2
    assert "--every must lie in" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_live_view_ends_cleanly(serve: Callable[..., tuple[str, Any]], how: signal.Signals) -> None:
    answers = Answers()
    address, _ = serve(answers)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trail", "top", address, "--every", "0.2"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        deadline = time.monotonic() + 60
        while (len(answers.asked) < 3 or b"waiting" not in seen) and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536)
        process.send_signal(how)
        while time.monotonic() < deadline:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(ours)
    assert b"\x1b[?1049h" in seen
    assert b"\x1b[?1049l" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert b"Traceback" not in seen


def test_help_says_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["top", "--help"])
    assert "--once" in capsys.readouterr().out
    assert trail_pb2.SnapshotRequest(requests=1).requests == 1
