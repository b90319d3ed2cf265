"""Cores that a process may use, from the files that a container sees."""

import os
from pathlib import Path

import pytest

from trail.sidecar.process.cores import cpu_seconds, idle_seconds, own_cores, usable_cores
from trail.wire.names import ENV_READY_FD

ALLOWED = float(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, ALLOWED),
        ({"v2/cpu.max": "max 100000\n"}, ALLOWED),
        ({"v2/cpu.max": "50000 100000\n"}, 0.5),
        ({"v2/cpu.max": "6400000 100000\n"}, ALLOWED),
        ({"v2/cpu.max": "nonsense"}, ALLOWED),
        ({"v1/cpu.cfs_quota_us": "-1\n", "v1/cpu.cfs_period_us": "100000\n"}, ALLOWED),
        ({"v1/cpu.cfs_quota_us": "25000\n", "v1/cpu.cfs_period_us": "100000\n"}, 0.25),
        ({"v1/cpu.cfs_quota_us": "25000\n"}, ALLOWED),
    ],
)
def test_the_quota_of_either_cgroup_version_counts(
    files: dict[str, str], cores: float, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path / "v1", tmp_path / "v2") == cores


@pytest.mark.parametrize(
    ("mine", "parent", "quota", "supervised", "own"),
    [
        (4, 4, "max", False, 0),  # whoever started it may have started vLLM on the same cores
        (4, 64, "max", False, 4),  # taskset
        (64, 64, "max", True, 0),  # a node's common pool
        (64, 64, "100000", True, 0),
        (1, 1, "max", True, 1),  # cores that the kubelet set apart
        (2, 2, "200000", True, 2),
        (2, 2, "50000", True, 0),  # half a core of two
        (60, 60, "100000", True, 0),  # the pool beside others' exclusive cores
        (4, 64, "150000", False, 0),
    ],
)
def test_cores_are_its_own_where_it_is_pinned_to_them_and_may_use_them_in_full(
    mine: int, parent: int, quota: str, supervised: bool, own: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(mine if pid == 0 else parent)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv(ENV_READY_FD, raising=False)
    if supervised:
        monkeypatch.setenv(ENV_READY_FD, "3")
    assert own_cores(tmp_path / "v1", tmp_path) == own


MINE = sorted(os.sched_getaffinity(0))


def test_idle_time_is_that_of_the_cores_one_may_use(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    rows = [f"cpu{n} 9 9 9 {ticks * (n + 1)} 5 0 0 0 0 0" for n in (*MINE, 9999)]
    (tmp_path / "stat").write_text("\n".join(["cpu 1 1 1 1", *rows, "intr 5"]))
    assert idle_seconds(tmp_path / "stat") == sum(n + 1 for n in MINE)
    assert idle_seconds()


@pytest.mark.parametrize(
    "text", [None, "", "cpu0", f"cpu{MINE[0]} 1 2", f"cpu{MINE[0]} 1 2 3 x", "cpu9999 1 1 1 1"]
)
def test_what_cannot_be_seen_is_no_idle_time(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert idle_seconds(tmp_path / "stat") is None


def test_cpu_time_is_the_processs_own_and_a_gone_one_has_none() -> None:
    before = cpu_seconds(os.getpid())
    total = 0
    while cpu_seconds(os.getpid()) <= before:
        total += sum(range(1000))
    with pytest.raises(OSError, match="stat"):
        cpu_seconds(2**22 + 1)
