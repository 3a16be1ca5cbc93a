"""Where a model computes, and how much memory there is left."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path

import torch

MEGABYTE = 10**6


def find_device(device: torch.device | str) -> torch.device:
    """Return the device of that name.

    Raises ValueError where there is no such name, or no such device in this machine.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'There is no device {device!r}: give "cpu", or a name such as "cuda".') from error
    try:
        torch.empty(0, dtype=torch.float32, device=found)  # the one question that every backend answers
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise ValueError(f'PyTorch finds no device {str(found)!r} in this machine: give "cpu" instead.') from error
    return found


def own_precision(device: torch.device) -> torch.autocast:
    """Inside, numbers keep their own precision, whatever mixed precision goes on around."""
    return torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False)  # it knows no "meta"


def has_bfloat16() -> bool:
    """Whether the processor multiplies matrices of bfloat16, and oneDNN was not told to leave that alone."""
    return torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@cache
def mkl_is_fast(file: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether MKL, with which PyTorch multiplies plain matrices, takes its fast ways: on Intel's AVX-512.

    Elsewhere it reads a matrix for two rows at a fraction of oneDNN's speed (measured on an AMD EPYC, and on an Intel
    Xeon with MKL_ENABLE_INSTRUCTIONS=AVX2, where it reads half as much a second as with all instructions).
    """
    intel = "GenuineIntel" in (file.read_text() if file.is_file() else platform.processor())
    has_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return intel and has_avx512 and torch.backends.mkl.is_available()


def check_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise MemoryError where `needed` bytes do not fit on the device, as far as anybody can tell."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise MemoryError(
            f"{what} needs {needed / MEGABYTE:,.0f} MB of memory and {free / MEGABYTE:,.0f} MB are free: "
            "choose a smaller model or dtype=torch.bfloat16, or end other programs."
        )


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes are free on a device; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    limits = [_free_of_machine(), _free_of_container()]
    return min((limit for limit in limits if limit is not None), default=None)


def _free_of_machine(file: Path = Path("/proc/meminfo")) -> int | None:
    """What Linux would hand out without swapping."""
    if not file.is_file():
        return None
    kilobytes = dict(line.split(":") for line in file.read_text().splitlines())
    return int(kilobytes["MemAvailable"].split()[0]) * 1024


def _free_of_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take (control groups, version 2): on Binder far less than the machine has."""
    limit, used = folder / "memory.max", folder / "memory.current"
    if not limit.is_file() or not used.is_file() or limit.read_text().strip() == "max":
        return None
    # Files that the kernel keeps in memory count as used, and leave when the memory is wanted.
    cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(limit.read_text()) - int(used.read_text()) + int(cached["inactive_file"])


def return_freed_memory() -> None:
    """Let the system have what freed tensors held: glibc keeps it, where they lay between others."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # other libraries for C have nothing of the kind
