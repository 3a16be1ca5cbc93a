"""How much memory opening a checkpoint takes: `python tests/benchmarks/loading.py`, offline, in musicgen-small's shape.

A checkpoint of that shape is written to a temporary folder (1.2 GB) and opened in a process of its own, which
prints its peak beyond what it had before, over the bytes of the weights that it holds afterwards. The tests hold the
shipped model to the same (`test_shipped_model.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

WRITE = """
import sys, torch
from musicgen_edu.config import PRESETS
from musicgen_edu.model import MusicGen

with torch.device("meta"):
    model = MusicGen(PRESETS[sys.argv[1]])
model.to_empty(device="cpu")
for tensor in [*model.parameters(), *model.buffers()]:
    tensor.data.fill_(0.5)  # the numbers do not matter, and random ones take a minute
model.text_encoder.model.tie_weights()
model.save_pretrained(sys.argv[2], dtype=torch.bfloat16, max_shard_size="500MB")
"""

OPEN = """
import sys, time, torch
from musicgen_edu.model import MusicGen

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

def now():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")  # the peak so far is forgotten
before, start = now(), time.perf_counter()
model = MusicGen.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
tensors = {tensor.data_ptr(): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
seconds, weights = time.perf_counter() - start, sum(tensors.values())
share = (peak() - before) / weights
print(weights / 1e6, share, seconds)
"""


def run(code: str, *arguments: str) -> str:
    """What a new interpreter prints that runs `code`."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def open_alone(folder: str | os.PathLike, dtype: str) -> tuple[float, float, float]:
    """Open a checkpoint in a process of its own: megabytes of weights, the peak as a share of them, and seconds."""
    megabytes, share, seconds = map(float, run(OPEN, str(folder), dtype).split())
    return megabytes, share, seconds


def main(size: str = "small") -> None:
    """Print a line for each precision."""
    with tempfile.TemporaryDirectory() as folder:
        run(WRITE, size, folder)
        for dtype in ("float32", "float16", "bfloat16"):
            megabytes, share, seconds = open_alone(folder, dtype)
            print(f"{dtype:<9}{megabytes:8.0f} MB of weights, peak {share:.3f} of them, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
