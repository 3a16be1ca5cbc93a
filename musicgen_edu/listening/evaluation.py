"""Room 13: does it do what the prompt says, and how good is it? `musicgen-edu evaluate` measures, and writes a report.

Nothing is judged by ear alone, and nothing without a measure of the measure: beside each figure of the model stands
what the same judge says of real renders (the ceiling), of the codec's reconstruction of them, and what guessing scores.
Attribute combinations and sentence forms are those that training never sees.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from musicgen_edu._arguments import Parser
from musicgen_edu._checks import check_codes
from musicgen_edu.checkpoints.pretrained import named_tensors
from musicgen_edu.checkpoints.tensors import fingerprint
from musicgen_edu.composer.render import SAMPLE_RATE, Renderer
from musicgen_edu.composer.score import FRAME_RATE
from musicgen_edu.files import one_line
from musicgen_edu.listening import metrics
from musicgen_edu.listening.clips import WINDOW, draw_prompts, generate_clips, real_clips, rebuild
from musicgen_edu.listening.measurements import (
    REAL_SEED,
    Plan,
    adherence,
    at_duration,
    at_scale,
    by_definition,
    cross_entropy,
    measure_codec,
    measure_diversity,
    measure_frechet,
    memorisation,
    train_all,
)
from musicgen_edu.listening.report import write_report
from musicgen_edu.model import MusicGen
from musicgen_edu.presets import create_musicgen_model
from musicgen_edu.request import MAX_DURATION

SHORTEST = 3.0  # seconds: rhythm is heard up to two seconds back
QUICK = Plan(prompts=40, judge_clips=600, real_clips=200, sweep_prompts=24, durations=())


def evaluate(model: MusicGen, plan: Plan, training_codes: Sequence[Tensor] = ()) -> dict:
    """Measure everything and return it as a dict that JSON can hold.

    Args:
        model: any MusicGen at 16 kHz.
        plan: how much is measured, and from which seed.
        training_codes: tensors [clips, codebooks, frames] of this codec, to look for memorised music in.

    Raises:
        FileNotFoundError: FluidSynth's soundfont is not installed.
        ValueError: the model's sample rate or the plan does not allow it.
    """
    _check(model, plan)
    started = time.perf_counter()
    renderer, codec, prompts = Renderer(), model.codec, draw_prompts(plan.prompts, plan.seed)
    frames = round(plan.duration * FRAME_RATE)
    judges = train_all(renderer, codec, frames, plan)
    real = real_clips(renderer, codec, frames, REAL_SEED, plan.real_clips)
    rebuilt = rebuild(real, codec)
    made = generate_clips(model, prompts, plan.duration, plan.seed)
    report = {
        "weights": fingerprint(named_tensors(model)),
        "plan": asdict(plan),
        "codec": measure_codec(real, rebuilt),
        "adherence": adherence(judges, made, prompts, {"ceiling": real, "codec": rebuilt}),
        "by_definition": {
            name: by_definition(each) for name, each in {"generated": made, "codec": rebuilt, "ceiling": real}.items()
        },
        "frechet": measure_frechet(renderer, codec, made, real, frames),
        "diversity": measure_diversity(model, renderer, prompts[0], plan),
        "cross_entropy": cross_entropy(model, real, from_start=plan.duration <= WINDOW),
    }
    if training_codes:
        size = codec.config.codebook_size
        report["memorisation"] = memorisation(made.codes, real.codes, training_codes)
        report["cross_entropy"]["bigram table"] = metrics.bigram_cross_entropy(real.codes, training_codes, size)
    some = prompts[: plan.sweep_prompts]
    scales, lengths = plan.guidance_scales, plan.durations
    report["guidance"] = {f"{scale:g}": at_scale(model, judges, some, plan, renderer, scale) for scale in scales}
    report["durations"] = {f"{length:g}": at_duration(model, renderer, some, plan, length) for length in lengths}
    return report | {"minutes": (time.perf_counter() - started) / 60}


def _check(model: MusicGen, plan: Plan) -> None:
    rate = model.config.codec.sample_rate
    if rate != SAMPLE_RATE:
        raise ValueError(f"Real music is rendered at {SAMPLE_RATE} Hz; a model of {rate} Hz cannot be compared.")
    if min(plan.prompts, plan.judge_clips, plan.real_clips, plan.sweep_prompts) < 16:
        raise ValueError("An evaluation needs at least 16 prompts and 16 clips of each kind to say anything.")
    if not all(SHORTEST <= length <= MAX_DURATION for length in (plan.duration, *plan.durations)):
        raise ValueError(f"The judges hear clips of {SHORTEST:g} to {MAX_DURATION:g} seconds; choose such durations.")


def read_training_codes(folder: Path) -> list[Tensor]:
    """The codes that a training run kept, as `training/data.py` writes them.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: a file is damaged, or holds no codes.
    """
    files = sorted(folder.glob("codes-*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"No training codes (codes-*.safetensors) in {one_line(folder)}; name a run's folder `codes`."
        )
    return [_read_codes(file) for file in files]


def _read_codes(file: Path) -> Tensor:
    try:
        return check_codes(load_file(file)["codes"])
    except (SafetensorError, KeyError, OSError, TypeError) as error:
        raise ValueError(
            f"{one_line(file)} is damaged, or holds no codes ({error}): let training make it again."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `musicgen-edu evaluate`; returns its exit code."""
    parser = Parser(
        prog="musicgen-edu evaluate",
        description="Measure the codec, and how well generated music follows its prompt, beside real renders and "
        "chance. Needs Debian's fluidsynth and fluid-soundfont-gm.",
    )
    add = parser.add_argument
    add("--model", metavar="FOLDER", type=Path, help="a model in transformers' layout (default: the one shipped)")
    add("--quick", action="store_true", help="a small version, in minutes")
    add("--prompts", metavar="N", type=int, help="default: 300, quick 40")
    add("--duration", metavar="S", type=float, default=5.0, help="seconds of each generated clip (default: 5)")
    add("--output", metavar="FOLDER", type=Path, default=Path("evaluation"), help="of the report (default: evaluation)")
    add("--training-codes", metavar="FOLDER", type=Path, help="a run's codes, to look for memorised music in")
    add("--guidance-sweep", action="store_true", help="also measure at guidance 1, 2, 3 and 5")
    add("--durations", metavar="S", type=float, nargs="+",
        help="also measure clips of these lengths (default: 10 and 20; quick: none)")  # fmt: skip
    add("--seed", metavar="N", type=int, default=0, help="default: 0")
    args = parser.parse_args(argv)
    base = QUICK if args.quick else Plan()
    plan = replace(
        base, prompts=base.prompts if args.prompts is None else args.prompts, duration=args.duration, seed=args.seed,
        guidance_scales=(1.0, 2.0, 3.0, 5.0) if args.guidance_sweep else (),
        durations=base.durations if args.durations is None else tuple(args.durations),
    )  # fmt: skip
    if not 0 <= args.seed < 2**32:
        parser.error("the seed must be from 0 to 2**32 − 1")
    training_codes = read_training_codes(args.training_codes) if args.training_codes else []
    model = MusicGen.from_pretrained(args.model) if args.model is not None else create_musicgen_model("tiny")
    _check(model, plan)
    Renderer()  # what it lacks is said before a folder is made
    args.output.mkdir(parents=True, exist_ok=True)
    write_report(evaluate(model, plan, training_codes), args.output)
    print((args.output / "report.md").read_text(encoding="utf-8"))
    return 0
