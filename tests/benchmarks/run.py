"""Speed and memory of the shipped model, as ratios: `make benchmark`.

Ratios, because machines differ: against real time, against the memory bandwidth measured in the same run, against
`import torch`. The two figures with a limit are checked against it; the exit code is 1 if one is exceeded.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from measure import measure

import musicgen_edu

SECONDS = 8.0
PROMPT = "peaceful piano melody"
MEMORY_LIMIT = 1.5e9  # bytes; Binder gives 2 GB
IMPORT_LIMIT = 0.3  # seconds more than `import torch`


def main() -> int:
    """Print every figure; 1 if peak memory or import time exceeds its limit."""
    memory, extra = peak_memory(), import_time("musicgen_edu") - import_time("torch")
    model = musicgen_edu.create_musicgen_model("tiny")
    seconds = median_time(lambda: model.generate(PROMPT, duration=SECONDS, seed=0), repeats=3)
    bandwidth, weights, step = memory_bandwidth(), decoder_bytes(model), step_time(model)
    rows = [
        (f"generate {SECONDS:g} s", f"{SECONDS / seconds:.2f} × real time", f"{seconds:.2f} s"),
        (
            "one step, guided",
            f"{step * bandwidth / weights:.1f} × the time to read its weights",
            f"{step * 1e3:.1f} ms; {weights / 1e6:.0f} MB at {bandwidth / 1e9:.0f} GB/s",
        ),
        (
            "peak memory",
            f"{memory / MEMORY_LIMIT:.2f} × the limit",
            f"{memory / 1e9:.2f} of {MEMORY_LIMIT / 1e9:g} GB",
        ),
        ("import", f"{extra / IMPORT_LIMIT:.2f} × the limit", f"{extra:.2f} of {IMPORT_LIMIT:g} s more than torch"),
    ]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for name, ratio, figures in rows:
        print(f"{name:<18}{ratio:<40}{figures}")
    return int(memory > MEMORY_LIMIT or extra > IMPORT_LIMIT)


def median_time(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of `run()`, after one run that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def memory_bandwidth(size: int = 2**28) -> float:
    """Bytes a second that all threads together read from memory: the sum of an array far larger than any cache."""
    array = torch.ones(size)  # 1 GiB of float32
    return array.nbytes / median_time(array.sum, repeats=5)


def decoder_bytes(model: musicgen_edu.MusicGen) -> int:
    """Bytes of the weights that every step reads: not the embeddings, of which it reads rows, nor the text's keys and
    values, which are computed once."""
    once = "embed_tokens", "encoder_attn.k_proj", "encoder_attn.v_proj"
    parameters = model.decoder.named_parameters()
    return sum(parameter.nbytes for name, parameter in parameters if not any(part in name for part in once))


def step_time(model: musicgen_edu.MusicGen) -> float:
    """Seconds between two steps of guided generation, from the second to the last, without codec and text encoder."""
    moments: list[float] = []
    model.generate(PROMPT, duration=SECONDS, seed=0, progress=lambda done, total: moments.append(time.perf_counter()))
    return statistics.median(later - earlier for earlier, later in pairwise(moments))


def peak_memory() -> float:
    """Peak resident bytes of a process that runs `musicgen-edu generate`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "music.wav")
        command = [sys.executable, "-m", "musicgen_edu", "generate", PROMPT, f"--duration={SECONDS}"]
        cost = measure([*command, f"--output={output}"])
        if not output.exists():
            raise RuntimeError(f"`{' '.join(command)}` wrote no file")
    return cost.memory


def import_time(module: str) -> float:
    """Median seconds that `import module` takes in a new process."""
    code = f"import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"
    command = [sys.executable, "-c", code]
    return statistics.median(float(subprocess.check_output(command, text=True)) for _ in range(5))


if __name__ == "__main__":
    sys.exit(main())
