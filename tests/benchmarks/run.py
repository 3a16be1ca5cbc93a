"""How fast the course's models are on this machine, beside bars: `make benchmark`.

All figures of a run are measured in it: ratios of times that were taken in turn (the median of five rounds), and times
against the memory bandwidth of the same machine. musicgen-small's shape has random weights, which take as long as
Meta's. What is printed is saved as `build/benchmark/figures.json`, with a picture of where time goes beside it. Nothing
else should run meanwhile. The exit code is 1 if the package needs more memory or a longer import than it promises.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import musicgen_edu  # isort: skip  (before torch: it chooses the threads, and how they wait)
import torch
from footprint import DECODED_AT_ONCE
from machine import ROUNDS, interleaved, last_level_cache, memory_bandwidth, processor, seconds
from measure import measure
from roofline import draw
from small import (
    Steps,
    bare_time,
    create_decoder,
    create_transformers,
    create_weights,
    profile,
    transformers_time,
    weight_bytes,
)

from musicgen_edu.codec import Codec, StreamingCodecDecoder
from musicgen_edu.config import PRESETS, DecoderConfig
from musicgen_edu.optimization import PRODUCTS

FOLDER = Path("build/benchmark")
PROMPT = "peaceful piano melody"
FRAMES = 100, 500, 1000, 1500
BATCHES = 1, 2, 4
LAYERS = 6, 12, 24
MEMORY_LIMIT = 1.5e9  # bytes; Binder gives 2 GB
IMPORT_LIMIT = 0.3  # seconds more than `import torch`
UNHURRIED = "int8"  # the fewest bits with which the shipped model plays as before


@dataclass
class Figure:
    """A line of the table."""

    name: str
    value: float
    bar: str = ""
    note: str = ""


def main() -> int:
    """Measure, print and save everything; 1 if memory or import time exceeds what the package promises."""
    torch.manual_seed(0)
    package = measure_package()  # first: a process begins as large as the one that starts it
    machine = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "last level cache, MB": last_level_cache() / 1e6,
        "bandwidth, GB/s": memory_bandwidth() / 1e9,
    }
    for name, value in machine.items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}", flush=True)
    print(f"\n{'figure':<56}{'value':>8}  {'bar':<29}from")
    small, points, profiles = measure_small(machine["bandwidth, GB/s"] * 1e9)
    figures = [*report(small), *report(measure_whole()), *report(measure_tiny())]
    report(package)
    print("\nWhere a step at frame 100 spends its time, under PyTorch's profiler, which slows it:")
    for rung, parts in profiles.items():
        print(f"{rung}: " + ", ".join(f"{part} {took / sum(parts.values()):.0%}" for part, took in parts.items()))
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine,
        "figures": [asdict(figure) for figure in figures + package],
        "points": points,
        "profiles, ms a step": profiles,
    }
    (FOLDER / "figures.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draw(content, FOLDER / "roofline.png")
    print(f"Saved: {FOLDER}/figures.json and roofline.png")
    memory, extra = package[0].value * 1e9, package[1].value
    return int(memory > MEMORY_LIMIT or extra > IMPORT_LIMIT)


def report(figures: list[Figure]) -> list[Figure]:
    """Print one line a figure: its bar, and what it is made of."""
    for figure in figures:
        print(f"{figure.name:<56}{figure.value:>8.2f}  {figure.bar:<29}{figure.note}", flush=True)
    return figures


def measure_small(bandwidth: float) -> tuple[list[Figure], list[dict], dict[str, dict[str, float]]]:
    """musicgen-small's decoder with guidance, on every rung and in transformers: figures, points, profiles."""
    weights = create_weights()
    plain = {rung: Steps(create_decoder(weights, PRESETS["small"].decoder, rung)) for rung in available_rungs()}
    compiled, figures = compile_steps(weights, [rung for rung in ("fp32", "bf16", "int4") if rung in plain])
    steps = plain | compiled
    took = compare(weights, steps)
    for rung, ours in steps.items():
        moved, products = weight_bytes(ours.decoder) + ours.cache_bytes(100), took[rung, "products"]
        step, reading = took[rung, 100], moved / bandwidth
        note = f"{step * 1e3:.1f} ms; {moved / 1e9:.2f} GB in {reading * 1e3:.1f} ms; products {products * 1e3:.1f} ms"
        figures.append(Figure(f"step / limit, {rung}", step / max(reading, products), "≤ 1.35, goal 1.2", note))
    for rung in steps:
        bar = "≤ 1.4" if rung == "fp32" else ""
        figures.append(Figure(f"step at frame 1500 / at 100, {rung}", took[rung, 1490] / took[rung, 100], bar))
    for rung in ("fp32", "bf16"):
        if rung in plain:
            theirs, step = took["transformers", rung], took[rung, 20]
            note = f"{theirs * 1e3:.1f} / {step * 1e3:.1f} ms"
            figures.append(Figure(f"transformers' step / ours, {rung}", theirs / step, "≥ 1.2", note))
    fastest = min(steps, key=lambda rung: took[rung, 20])
    ratio = min(took[key] for key in took if key[0] == "transformers") / took[fastest, 20]
    note = f"{fastest}; transformers is not compiled"
    figures.append(Figure("transformers at its fastest / ours", ratio, "≥ 2.5, goal 4", note))
    profiles = {rung: profile(ours) for rung, ours in steps.items()}
    return figures, [*measure_frames(plain), *measure_growth(weights)], profiles


def compile_steps(weights: dict[str, torch.Tensor], rungs: list[str]) -> tuple[dict[str, Steps], list[Figure]]:
    """Compiled decoders on these rungs, by name, and how long compiling took; none where there is no compiler."""
    made, figures = {}, []
    for rung in rungs:
        try:
            decoder = create_decoder(weights, PRESETS["small"].decoder, rung, compiled=True)
        except ValueError as error:
            print(f"nothing is compiled: {error}")
            break
        made[f"{rung} compiled"] = Steps(decoder)
        took = seconds(lambda name=f"{rung} compiled": made[name].time(100))
        figures.append(Figure(f"seconds of compiling, {rung}", took, note="less where its files are there already"))
    return made, figures


def available_rungs() -> list[str]:
    """Every rung that this processor multiplies in."""
    has_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return [rung for rung in PRODUCTS if rung != "bf16" or has_bf16]


def compare(weights: dict[str, torch.Tensor], steps: dict[str, Steps]) -> dict[tuple, float]:
    """Seconds of a step on each rung at three frames, of its products alone, and of transformers' step, in turn."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    theirs = {rung: create_transformers(weights, dtype) for rung, dtype in dtypes.items()}
    runs = {("transformers", rung): lambda model=model: transformers_time(model) for rung, model in theirs.items()}
    for rung, ours in steps.items():
        runs |= {(rung, frame): lambda ours=ours, frame=frame: ours.time(frame) for frame in (20, 100, 1490)}
        runs[rung, "products"] = lambda ours=ours: bare_time(ours.decoder)
    return interleaved(runs)


def measure_frames(steps: dict[str, Steps]) -> list[dict]:
    """Bytes moved and seconds of a step, further and further into a clip."""
    runs = {(rung, frame): lambda s=s, f=frame: s.time(f - 10) for rung, s in steps.items() for frame in FRAMES}
    took = interleaved(runs, rounds=3)
    return [
        {"rung": rung, "frame": frame, "batch": 1, "layers": 24, "seconds": took[rung, frame],
         "bytes": weight_bytes(steps[rung].decoder) + steps[rung].cache_bytes(frame)}
        for rung, frame in runs
    ]  # fmt: skip


def measure_growth(weights: dict[str, torch.Tensor]) -> list[dict]:
    """The same at frame 100 for more clips at once, and for fewer layers."""
    points = []
    for layers, batches in ((24, BATCHES[1:]), *((count, (1,)) for count in LAYERS[:-1])):
        config = DecoderConfig(**asdict(PRESETS["small"].decoder) | {"num_layers": layers})
        some = {name: tensor for name, tensor in weights.items()
                if not name.startswith("layers.") or int(name.split(".")[1]) < layers}  # fmt: skip
        for rung in ("fp32", "int4"):
            decoder = create_decoder(some, config, rung)
            for batch in batches:
                steps = Steps(decoder, batch, frames=128)
                took = statistics.median(steps.time(90) for _ in range(3))
                points.append({"rung": rung, "frame": 100, "batch": batch, "layers": layers, "seconds": took,
                               "bytes": weight_bytes(decoder) + steps.cache_bytes(100)})  # fmt: skip
    return points


def measure_whole() -> list[Figure]:
    """Text to WAV with musicgen-small's shape, its codec alone, and the memory that it takes."""
    figures, bar = [], "≤ 1.6 at 20 GB/s, 1.0 at 45"
    for compiled in (False, True):
        model = musicgen_edu.create_musicgen_model("small")
        try:
            model.optimize("int4", keep_weights=False, compiled=compiled)
        except ValueError:  # nothing to compile with, as was said above
            break
        rung = "int4 compiled" if compiled else "int4"
        name = f"real-time factor, 10 s, text to WAV, {rung}"
        figures.append(Figure(name, real_time_factor(model), bar, "goals 1.25, 0.6"))
    codes = torch.randint(0, 2048, (1, 4, 500), device="cpu")
    decode = interleaved({"codec": lambda: seconds(lambda: decode_in_chunks(model.codec, codes))})["codec"]
    memory = float(subprocess.check_output([sys.executable, str(Path(__file__).with_name("footprint.py"))], text=True))
    return [
        *figures,
        Figure("32 kHz codec, seconds a second of audio", decode / 10, "≤ 0.15"),
        Figure("GB for decoder, cache and codec, int4, 10 s", memory / 1e9, "≤ 0.6"),
    ]


def real_time_factor(model: musicgen_edu.MusicGen, duration: int = 10) -> float:
    """Seconds from text to WAV for each second of sound, the median of three; a first one, which may compile, is not
    counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "music.wav")
        took = [seconds(lambda: model.generate(PROMPT, duration, seed=0).save(path)) for _ in range(4)]
    return statistics.median(took[1:]) / duration


def decode_in_chunks(codec: Codec, codes: torch.Tensor, frames: int = DECODED_AT_ONCE) -> None:
    """Decode as a stream does, a second at a time."""
    decoder = StreamingCodecDecoder(codec)
    for start in range(0, codes.shape[2], frames):
        decoder.push(codes[:, :, start : start + frames], last=start + frames >= codes.shape[2])


def measure_tiny() -> list[Figure]:
    """The shipped model as it is, and with packed weights."""
    plain, packed = (musicgen_edu.create_musicgen_model("tiny") for _ in range(2))
    packed.optimize(UNHURRIED)
    runs = {name: lambda model=model: seconds(lambda: model.generate(PROMPT, 8, seed=0))
            for name, model in {"plain": plain, "packed": packed}.items()}  # fmt: skip
    took = interleaved(runs)
    first = statistics.median(first_sound(packed) for _ in range(ROUNDS))
    note = f"{took['plain']:.2f} / {took['packed']:.2f} s"
    return [
        Figure(f"tiny, 8 s, text to sound: default / {UNHURRIED}", took["plain"] / took["packed"], "≥ 2.0", note),
        Figure("tiny, 8 s, real-time factor as it is", took["plain"] / 8),
        Figure(f"tiny, {UNHURRIED}, stream of 10 s: first sound / whole", first, "≤ 0.05"),
    ]


def first_sound(model: musicgen_edu.MusicGen) -> float:
    """The share of the time of a stream that passes before its first chunk."""
    started, moments = time.perf_counter(), []
    for _ in model.stream(PROMPT, 10, seed=0, chunk_duration=0.1):
        moments.append(time.perf_counter() - started)
    return moments[0] / moments[-1]


def measure_package() -> list[Figure]:
    """What a process needs that generates 8 s with the shipped model, and what the import takes beyond torch's."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "music.wav")
        command = [sys.executable, "-m", "musicgen_edu", "generate", PROMPT, "--duration=8", f"--output={output}"]
        cost = measure(command)
        if not output.exists():
            raise RuntimeError(f"`{' '.join(command)}` wrote no file")
    code = "import time, torch; start = time.perf_counter(); import musicgen_edu; print(time.perf_counter() - start)"
    extra = statistics.median(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(ROUNDS))
    return [
        Figure("peak memory of `musicgen-edu generate`, GB", cost.memory / 1e9, f"≤ {MEMORY_LIMIT / 1e9:g}"),
        Figure("seconds of `import musicgen_edu` after torch", extra, f"≤ {IMPORT_LIMIT:g}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
