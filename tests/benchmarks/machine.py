"""The machine that is measured: its processor, how fast it reads memory, and how times are compared on it."""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)

ROUNDS = 5
SMALLEST_BUFFER = 1.5e9  # bytes


def processor() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def last_level_cache() -> int:
    """Bytes of the largest cache that the first core sees; 0 where the system does not tell."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def memory_bandwidth() -> float:
    """Bytes a second that all threads together read from memory: the sum of a buffer that no cache can hold."""
    array = torch.ones(int(max(SMALLEST_BUFFER, 4 * last_level_cache()) / 4), dtype=torch.float32)
    return array.nbytes / statistics.median(seconds(array.sum) for _ in range(ROUNDS))


def seconds(run: Callable[[], object]) -> float:
    """How long `run()` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def interleaved(runs: Mapping[Key, Callable[[], float]], rounds: int = ROUNDS) -> dict[Key, float]:
    """The median of what each function returns, called in turn, so that all meet the same machine.

    A first round warms up and is not counted.
    """
    measured: dict[Key, list[float]] = {name: [] for name in runs}
    for counted in [False] + [True] * rounds:
        for name, run in runs.items():
            value = run()
            if counted:
                measured[name].append(value)
    return {name: statistics.median(values) for name, values in measured.items()}
