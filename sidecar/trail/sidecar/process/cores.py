"""How many cores this process may use, and how many of them are free. Standard library only.

`os.cpu_count` says what the machine has. A container has what its cgroup gives it: the cores it may run on,
and a quota of CPU time in each period. Niceness and `sched_yield` act inside one container and say nothing to
another, so that a process which must not be in a neighbour's way has to look whether a core is free.
"""

import os
from pathlib import Path

from trail.wire.names import ENV_READY_FD

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


def usable_cores(v1: Path = _V1, v2: Path = _V2) -> float:
    """Cores by affinity and by the cgroup's quota, whichever is less. In a container its cgroup is the root
    of what it sees at `v1` or `v2`."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = _quota(v2 / "cpu.max") or _old_quota(v1)
    return min(allowed, quota) if quota else allowed


def own_cores(v1: Path = _V1, v2: Path = _V2) -> int:
    """Whole cores that are this process's own, as far as it can see; 0 where others may be on all of them.

    They are its own where it is pinned to them, there are more around it, and it may use them in full: a
    quota below their number says that they are for several. Around it are the machine's cores for a sidecar
    under its supervisor, which is alone in its container, and else those of the process that started it,
    which may have started vLLM on the same ones.
    """
    mine = len(os.sched_getaffinity(0))
    alone = ENV_READY_FD in os.environ  # the supervisor's
    around = os.cpu_count() or mine if alone else len(os.sched_getaffinity(os.getppid()))
    return mine if mine < around and usable_cores(v1, v2) >= mine else 0


def _quota(file: Path) -> float | None:
    """cgroup v2: `QUOTA PERIOD`, the first of which may be `max`."""
    try:
        quota, period = file.read_text().split()
        return int(quota) / int(period) if quota != "max" and int(period) > 0 else None
    except (OSError, ValueError):
        return None


def _old_quota(folder: Path) -> float | None:
    """cgroup v1: a file each; a negative quota is none."""
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def idle_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Seconds that the cores which this process may use have been idle since the machine started; None where
    that cannot be seen, as where a container is shown cores of its own numbering."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        rows = [line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")]
        found = [int(row[4]) for row in rows if row[0] in mine]
    except (OSError, ValueError, IndexError):
        return None
    return sum(found) * _TICK_S if len(found) == len(mine) else None


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its threads so far. Raises OSError for one that is gone."""
    # Behind the name in parentheses, which may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
