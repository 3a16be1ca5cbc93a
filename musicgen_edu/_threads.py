"""How many threads PyTorch should compute with, found before it is loaded.

PyTorch takes all cores of the machine, also in a container that may use two of them and beside programs that are busy:
threads that wait for each other then take several times as long as one alone.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path


def free_cores(cores: int, quota: float | int = math.inf, load: float | int = 0) -> int:
    """Cores that are there, that the container may use, and that nobody else keeps busy; at least 1.

    `quota` and `load` count cores, as control groups and the load average do.
    """
    return max(1, min(cores, math.ceil(min(quota, cores)), math.floor(cores - load + 0.5)))


def count_cores() -> int:
    """Physical cores that this process may use: two threads on one core share its arithmetic."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    info = Path("/proc/cpuinfo")
    identity = r"^physical id\s*:\s*(\d+)$.*?^core id\s*:\s*(\d+)$"
    found = re.findall(identity, info.read_text(), re.MULTILINE | re.DOTALL) if info.is_file() else []
    return min(len(allowed), len(set(found)) or len(allowed))


def container_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that the control group grants, of version 2 or 1; infinite where nothing limits them."""
    for limit, period in ((root / "cpu.max", None), (root / "cpu/cpu.cfs_quota_us", root / "cpu/cpu.cfs_period_us")):
        try:
            words = limit.read_text().split() + (period.read_text().split() if period else [])
            quota, length = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):  # no such file, or the word "max"
            continue
        return quota / length if quota > 0 else math.inf
    return math.inf


def default_threads() -> int:
    """Threads for this process: the free cores at its start."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return free_cores(count_cores(), container_quota(), load)
