"""What a command costs: the seconds it takes and the memory it holds at most."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """What a command, with the processes that it waited for, took."""

    seconds: float
    processor_seconds: float  # of all cores together, whatever else the machine was doing
    memory: float  # peak resident bytes of the largest process; no less than the caller holds, which it begins as


def measure(command: Sequence[str]) -> Cost:
    """Run `command` and measure it. Raises RuntimeError with what it printed last if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed with {process.returncode}:\n{complaint[-2000:]}")
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kilobytes
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, memory)
