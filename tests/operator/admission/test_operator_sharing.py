"""Sidecar and vLLM as different users on one volume: what the injected group is for, on real files."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_kit import admit, make_pod, make_policy, make_view

from trail.wire.board import BoardWriter
from trail.wire.frames import FrameReader, RingSpec
from trail.wire.mapped import attach_file
from trail.wire.names import board_path, ring_path, socket_path
from trail_operator import names
from trail_operator.settings import GROUP, NOBODY

VLLM_USER = 1000810000


def sidecar_side(directory: Path) -> socket.socket:
    """What the sidecar creates, with its own functions."""
    BoardWriter.create(board_path(directory, 0), 64)
    FrameReader.create(ring_path(directory, 0), RingSpec(64, 8, 4))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(socket_path(directory)))
    socket_path(directory).chmod(0o660)
    listener.listen()
    return listener


def engine_side(directory: Path) -> None:
    """What vLLM's processes open, with their own functions."""
    for file in (board_path(directory, 0), ring_path(directory, 0)):
        mapped = attach_file(file, "file", 64)
        mapped.data[-1] = 7  # for reading and writing
        mapped.close()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path(directory)))
    (directory / "stats.json").write_text("{}")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")


def volume(tmp_path: Path, *, fs_group: int | None) -> Path:
    """An emptyDir as the kubelet makes it: open to all; with an fsGroup, of that group and set-group-id."""
    for parent in (tmp_path, *tmp_path.parents[:3]):  # pytest's own, closed to others
        parent.chmod(parent.stat().st_mode | 0o011)
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o777)
    if fs_group is not None:
        os.chown(directory, 0, fs_group)
        directory.chmod(0o2777)
    return directory


def as_user(work: Callable[[Path], Any], directory: Path, user: int, group: int, groups: list[int]) -> str:
    """Does `work` in a process of that user; what it said where it failed, else ''."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
            os.umask(0o077)
            work(directory)
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def share(tmp_path: Path, *, engine_groups: list[int], fs_group: int | None) -> str:
    """What vLLM's side says after the sidecar's has made its files."""
    directory = volume(tmp_path, fs_group=fs_group)
    common = [] if fs_group is None else [fs_group]
    done = threading.Event()

    def serve(place: Path) -> None:
        listener = sidecar_side(place)
        (place / "ready").touch()
        listener.accept()

    server = threading.Thread(
        target=lambda: (as_user(serve, directory, NOBODY, GROUP, [GROUP, *common]), done.set()), daemon=True
    )
    server.start()
    while not (directory / "ready").exists():
        assert not done.is_set()
        time.sleep(0.01)
    said = as_user(engine_side, directory, VLLM_USER, VLLM_USER, [*engine_groups, *common])
    if said:
        as_user(
            lambda place: socket.socket(socket.AF_UNIX).connect(str(socket_path(place))), directory, 0, 0, [0]
        )
    server.join(60)
    return said


@needs_root
@pytest.mark.parametrize("fs_group", [None, 3000])
def test_two_users_share_ring_board_and_socket_through_the_group(
    tmp_path: Path, fs_group: int | None
) -> None:
    assert share(tmp_path, engine_groups=[GROUP], fs_group=fs_group) == ""


@needs_root
def test_without_the_group_vllm_is_refused(tmp_path: Path) -> None:
    assert "a group shared with the sidecar" in share(tmp_path, engine_groups=[], fs_group=None)


@needs_root
def test_an_fs_group_alone_would_do_as_well(tmp_path: Path) -> None:
    assert share(tmp_path, engine_groups=[], fs_group=3000) == ""


def test_every_container_of_an_injected_pod_is_in_the_group_and_the_sidecar_writes_as_it() -> None:
    pod = admit(make_pod(), make_view([make_policy()]))
    assert GROUP in pod["spec"]["securityContext"]["supplementalGroups"]
    (sidecar,) = (c for c in pod["spec"]["initContainers"] if c["name"] == names.SIDECAR)
    assert sidecar["securityContext"]["runAsGroup"] == GROUP
    assert "fsGroup" not in pod["spec"]["securityContext"]


COPY = ["/bin/sh", "-c"]


def copy_script(pod: dict[str, Any], source: Path, into: Path) -> str:
    """The plugin's copy as it is injected, with its paths moved to a scratch directory."""
    (engine,) = (c for c in pod["spec"]["initContainers"] if c["name"] == names.ENGINE)
    assert engine["command"][:2] == COPY
    script: str = engine["command"][2]
    return script.replace(names.ENGINE_DIR, str(into)).replace("/trail/engine", str(source))


def test_the_plugin_appears_whole_or_not_at_all_and_the_copy_never_fails(tmp_path: Path) -> None:
    pod = admit(make_pod(), make_view([make_policy()]))
    source, into = tmp_path / "image", tmp_path / "volume"
    into.mkdir()
    script = copy_script(pod, source, into)
    assert subprocess.run([*COPY, script], check=False, capture_output=True).returncode == 0
    assert not list(into.iterdir())
    (source / "trail").mkdir(parents=True)
    (source / "trail/plugin.py").write_text("x = 1")
    for _ in range(2):
        assert subprocess.run([*COPY, script], check=False, capture_output=True).returncode == 0
        assert [p.name for p in into.iterdir()] == ["lib"]
        assert (into / "lib/trail/plugin.py").read_text() == "x = 1"
    into.chmod(0o500)
    try:
        assert subprocess.run([*COPY, script], check=False, capture_output=True).returncode == 0
    finally:
        into.chmod(0o700)


def test_the_status_of_an_injected_pod_is_one_line_of_json() -> None:
    pod = admit(make_pod(), make_view([make_policy()]))
    text = pod["metadata"]["annotations"][names.STATUS]
    assert "\n" not in text
    assert json.loads(text)["policy"] == "llm/default"
