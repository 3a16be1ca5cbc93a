"""`musicgen-edu generate`: sound files from a text, from a sound, or from nothing.

What it prints is the way of the data, one line a stage, with the shapes that really went through: they are taken from
the modules while they run, never from a configuration.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

import musicgen_edu
from musicgen_edu.cli.output import SUFFIXES, check_output, reserved, slug

EXAMPLES = """\
examples:
  musicgen-edu generate "loud happy piano arpeggio, fast" --seed 1
  musicgen-edu generate "peaceful piano melody" --seed 3
  musicgen-edu generate "happy marimba, fast, with drums" --duration 12 --seed 3
  musicgen-edu generate "sad strings, slow chords" --guidance 4 --output strings.wav
  musicgen-edu generate "loud strings" --continue strings.wav --duration 20
  musicgen-edu generate "peaceful piano melody" --duration 60 --stride 10
  musicgen-edu generate --unconditional --samples 3
"""


def add_generate(commands: argparse._SubParsersAction, only: Callable) -> None:
    """Add the command; `only` makes what it runs refuse arguments that it does not know."""
    command = commands.add_parser(
        "generate",
        help="write a sound file from a text",
        description="Write a sound file from a text, and show the way of the data from one to the other.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("prompt", metavar="PROMPT", nargs="?", help="what to play, for example: peaceful piano melody")
    add("--unconditional", action="store_true", help="play what comes to the model's mind, without a prompt")
    add("--output", metavar="FILE", type=Path, help=f"the file to write, {', '.join(SUFFIXES)} (default: a new WAV)")
    add("--duration", metavar="S", type=float, default=8.0, help="seconds of music, in all (default: 8)")
    add("--seed", metavar="N", type=int, default=0, help="another number, another piece (default: 0)")
    add("--samples", metavar="N", type=int, default=1, help="so many pieces, each in a file of its own (default: 1)")
    add("--continue", metavar="FILE", type=Path, dest="continue_from", help="a sound file that the music begins with")
    add("--melody", metavar="FILE", type=Path, help="a sound file whose tune it follows; needs a melody model")
    add("--window", metavar="S", type=float, help="seconds that are written with one another in view")
    add("--stride", metavar="S", type=float, help="longer music is written in windows, one every S seconds")
    add("--temperature", metavar="T", type=float, help="above 1 more daring, below 1 safer, 0 always the likeliest")
    add("--top-k", metavar="K", type=int, help="choose among the K likeliest codes; 0 among all")
    add("--top-p", metavar="P", type=float, help="choose among the likeliest codes that share the probability P")
    add("--guidance", metavar="G", type=float, help="how closely to follow the prompt; 1 turns guidance off")
    add("--true-level", action="store_true", help="write it as soft or loud as it was made, not at a listening level")
    name = "a folder in transformers' layout, or a name such as facebook/musicgen-small (default: the model shipped)"
    add("--model", metavar="MODEL", help=name)
    command.set_defaults(run=only(_generate, command))


def _generate(args: argparse.Namespace) -> int:
    from musicgen_edu.request import MAX_SAMPLES  # loaded when it is used: `--help` shall be quick

    if (args.prompt is None) != args.unconditional:
        raise ValueError("give a prompt, in quotes, or --unconditional for music without one")
    title = args.prompt or ""
    check_output(args.output or Path(f"{slug(title)}.wav"))
    if args.model is not None:  # an empty name is none
        model = musicgen_edu.MusicGen.from_pretrained(args.model)
    else:
        model = musicgen_edu.create_musicgen_model("tiny")
    samples = max(1, min(args.samples, MAX_SAMPLES))  # the model itself refuses others
    with reserved(args.output, title, samples) as paths:
        _make_music(model, args, paths)
    return 0


def _make_music(model: musicgen_edu.MusicGen, args: argparse.Namespace, paths: list[Path]) -> None:
    names = (
        "duration",
        "seed",
        "samples",
        "continue_from",
        "melody",
        "window",
        "stride",
        "temperature",
        "top_k",
        "top_p",
    )
    started = time.perf_counter()
    with _trace(model, args), _progress_bar() as progress:
        options = {name: getattr(args, name) for name in names}
        audio = model.generate(args.prompt, progress=progress, guidance_scale=args.guidance, **options)
    seconds = time.perf_counter() - started
    gain = 0.0 if args.true_level else audio.listening_gain()
    for clip, path in zip(audio.waveform * 10 ** (gain / 20), paths, strict=True):
        musicgen_edu.Audio(clip[None], audio.sample_rate).save(path)
    _report(audio, gain, args.true_level)
    for path in paths:
        print(f"{'file':<12}{path}")
    print(f"{'time':<12}{seconds:.1f} s, {len(paths) * audio.duration / seconds:.1f} × real time")


def _report(audio: musicgen_edu.Audio, gain: float, true_level: bool) -> None:
    from musicgen_edu.player import gain_in_words  # loaded when it is used: `--help` shall be quick

    batch, codebooks, frames = audio.codes.shape
    rate = frames / audio.duration
    _line("codes", audio.codes.shape, f"{codebooks} codebooks × {frames} frames, {rate:.0f} a second")
    _line("waveform", audio.waveform.shape, f"{audio.duration:.2f} s at {audio.sample_rate / 1000:g} kHz")
    print(f"{'level':<12}{gain_in_words(gain)}{'' if true_level else ' (--true-level leaves it alone)'}")


@contextmanager
def _trace(model: musicgen_edu.MusicGen, args: argparse.Namespace) -> Iterator[None]:
    """While open, what `model` is told prints a line a module with the shapes that pass through it."""

    def text_encoded(module, inputs, states):
        ids = inputs[0][0].tolist()
        _line("ids", inputs[0].shape, " ".join(map(str, ids[:12])) + " …" * (len(ids) > 12))
        _line("T5", states.shape, "a state for each token")

    def projected(module, inputs, states):
        _line("projection", states.shape, f"{inputs[0].shape[-1]} wide to {states.shape[-1]} wide")

    def melody_heard(module, inputs, states):
        if inputs[0].shape[1] > 1:  # one column stands for no melody
            _line("melody", inputs[0].shape, f"{inputs[0].shape[1]} columns of {args.melody}, a tone in each")

    def start_encoded(module, inputs, latents):
        _line("start", inputs[0].shape, f"{args.continue_from}, {latents.shape[-1]} frames of it")

    print(f'{"text":<12}"{args.prompt}"' if args.prompt else f"{'text':<12}none")
    hooked = {
        model.text_encoder: text_encoded, model.projection: projected, model.melody_projection: melody_heard,
        model.codec.encoder: start_encoded,
    }  # fmt: skip
    hooks = [module.register_forward_hook(hook) for module, hook in hooked.items() if module is not None]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _line(stage: str, shape: Sequence[int], note: str) -> None:
    print(f"{stage:<12}{str(list(shape)):<16}{note}", flush=True)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A callback `progress(done, total)` that draws a bar on a terminal's stderr, from its first call on."""
    bars = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(total=total, unit="step", leave=False, disable=None))
        bars[0].update(done - bars[0].n)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()
