"""The command line: `musicgen-edu generate "peaceful piano melody"` and its sisters.

What `generate` prints is the way of the data, one line a stage, with the shapes that really went through: they are
taken from the modules while they run, never from a configuration. A mistake of the user's ends in one sentence on
stderr and exit code 2; Ctrl-C ends in exit code 130.
"""

from __future__ import annotations

import argparse
import importlib
import io
import itertools
import os
import re
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

import musicgen_edu
from musicgen_edu._arguments import Listener, Parser

EXAMPLES = """\
examples:
  musicgen-edu generate "loud happy piano melody, fast" --seed 3
  musicgen-edu generate "peaceful piano melody" --seed 3
  musicgen-edu generate "happy marimba, fast, with drums" --duration 12 --seed 3
  musicgen-edu generate "sad strings, slow chords" --guidance 4 --output strings.wav
"""

# Commands whose own module reads the rest of the line, imported only when it is used: (module, its extra, summary).
DELEGATED = {
    "train": ("musicgen_edu.training.command", "train", "train every part, or teach a model your own sound"),
    "verify": ("musicgen_edu.reality.checks", "", "test by experiments whether the model is real"),
    "evaluate": ("musicgen_edu.listening.evaluation", "train", "measure how well the model follows its prompt"),
}

SUFFIXES = ".wav", ".flac", ".ogg", ".mp3"  # those of audio.FORMATS, which is loaded later
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError)
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 after bad input, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a prompt's letters shows question marks
    with redirect_stdout(Listener(sys.stdout)), redirect_stderr(Listener(sys.stderr)), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        args, rest = _parser().parse_known_args(argv)
        try:
            return args.run(args, rest)
        except KeyboardInterrupt:
            print("musicgen-edu: stopped", file=sys.stderr)
            return 130
        except (*USER_ERRORS, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _lacks_memory(error):
                raise
            print(f"musicgen-edu: {_sentence(error)}", file=sys.stderr)
            return 2


def _parser() -> Parser:
    parser = Parser(
        prog="musicgen-edu",
        description="Text in, music out: a small MusicGen that was trained from its own repository.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"musicgen-edu {musicgen_edu.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_generate(commands)
    _add_lab(commands)
    for name, (module, extra, summary) in DELEGATED.items():
        command = commands.add_parser(name, help=summary, add_help=False)
        command.set_defaults(run=lambda args, rest, module=module, extra=extra: _import(module, extra).main(rest))
    return parser


def _add_generate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "generate",
        help="write a sound file from a text",
        description="Write a sound file from a text, and show the way of the data from one to the other.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("prompt", metavar="PROMPT", help="what to play, for example: peaceful piano melody")
    add("--output", metavar="FILE", type=Path, help=f"the file to write, {', '.join(SUFFIXES)} (default: a new WAV)")
    add("--duration", metavar="S", type=float, default=8.0, help="seconds of music (default: 8)")
    add("--seed", metavar="N", type=int, default=0, help="another number, another piece (default: 0)")
    add("--temperature", metavar="T", type=float, help="above 1 more daring, below 1 safer, 0 always the likeliest")
    add("--top-k", metavar="K", type=int, help="choose among the K likeliest codes; 0 among all")
    add("--top-p", metavar="P", type=float, help="choose among the likeliest codes that share the probability P")
    add("--guidance", metavar="G", type=float, help="how closely to follow the prompt; 1 turns guidance off")
    add("--true-level", action="store_true", help="write it as soft or loud as it was made, not at a listening level")
    add("--model", metavar="FOLDER", type=Path, help="a model in transformers' layout (default: the one shipped)")
    command.set_defaults(run=_only(_generate, command))


def _add_lab(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "lab", help="open JupyterLab on the notebooks", description="Open JupyterLab on the course's notebooks."
    )
    command.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=NOTEBOOKS, help="another folder than the course's"
    )
    command.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    command.set_defaults(run=_only(_lab, command))


def _only(run: Callable, command: Parser) -> Callable:
    """`run` for a command that knows all of its arguments: anything left over is a mistake."""

    def checked(args: argparse.Namespace, rest: list[str]) -> int:
        if rest:
            command.error(f"unrecognized arguments: {' '.join(rest)}")
        return run(args)

    return checked


def _generate(args: argparse.Namespace) -> int:
    _check_output(args.output or Path(f"{slug(args.prompt)}.wav"))
    if args.model:
        model = musicgen_edu.MusicGen.from_pretrained(args.model)
    else:
        model = musicgen_edu.create_musicgen_model("tiny")
    with _reserved(args.output, args.prompt) as output:
        _make_music(model, args, output)
    return 0


def _make_music(model: musicgen_edu.MusicGen, args: argparse.Namespace, output: Path) -> None:
    from musicgen_edu.player import LISTENING_LUFS, gain_in_words  # loaded when it is used: `--help` shall be quick

    chosen = dict(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, guidance_scale=args.guidance)
    options = {name: value for name, value in chosen.items() if value is not None}
    started = time.perf_counter()
    with _trace(model, args.prompt), _progress_bar() as progress:
        audio = model.generate(args.prompt, duration=args.duration, seed=args.seed, progress=progress, **options)
    seconds = time.perf_counter() - started
    level = None if args.true_level else LISTENING_LUFS
    audio.save(output, level=level)
    batch, codebooks, frames = audio.codes.shape
    rate = frames / audio.duration
    _line("codes", audio.codes.shape, f"{codebooks} codebooks × {frames} frames, {rate:.0f} a second")
    _line("waveform", audio.waveform.shape, f"{audio.duration:.2f} s at {audio.sample_rate / 1000:g} kHz")
    gain = 0.0 if args.true_level else audio.listening_gain()
    print(f"{'level':<12}{gain_in_words(gain)}{'' if args.true_level else ' (--true-level leaves it alone)'}")
    print(f"{'file':<12}{output}")
    print(f"{'time':<12}{seconds:.1f} s, {audio.duration / seconds:.1f} × real time")


def _lab(args: argparse.Namespace) -> int:
    if not args.folder.is_dir():
        raise FileNotFoundError(f"there is no folder {args.folder}; name the folder of the notebooks")
    _import("jupyterlab.labapp", "notebooks").main([str(args.folder), *["--no-browser"] * args.no_browser])
    return 0


def _import(module: str, extra: str) -> ModuleType:
    """A module that needs one of the package's extras."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        mend = f'in the repository, `pip install --constraint constraints.txt --editable ".[{extra}]"` installs it'
        raise ImportError(f"{error.name} is not installed; {mend}") from error


@contextmanager
def _trace(model: musicgen_edu.MusicGen, prompt: str) -> Iterator[None]:
    """While open, the text's side of `model` prints a line a module with the shapes that pass through it."""

    def text_encoded(module, inputs, states):
        ids = inputs[0][0].tolist()
        _line("ids", inputs[0].shape, " ".join(map(str, ids[:12])) + " …" * (len(ids) > 12))
        _line("T5", states.shape, "a state for each token")

    def projected(module, inputs, states):
        _line("projection", states.shape, f"{inputs[0].shape[-1]} wide to {states.shape[-1]} wide")

    print(f'{"text":<12}"{prompt}"')
    hooks = [model.text_encoder.register_forward_hook(text_encoded)]
    if model.projection is not None:
        hooks.append(model.projection.register_forward_hook(projected))
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


def slug(prompt: str, longest: int = 60) -> str:
    """A file name from a prompt, safe on every system: Latin letters and digits, or "music" where there are none."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain)[:longest].strip("-") or "music"
    reserved = re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", name)  # devices on Windows, whatever the suffix
    return f"music-{name}" if reserved else name


@contextmanager
def _reserved(output: Path | None, prompt: str) -> Iterator[Path]:
    """The file to write: the one asked for, or a new one, whose name is taken at once and given back on failure."""
    if output is not None:
        yield output
        return
    path = _take(Path(f"{slug(prompt)}.wav"))
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _take(path: Path) -> Path:
    """Make an empty file of this name or, where it is taken, of the next number: two commands never get the same."""
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            candidate.open("x").close()
        except FileExistsError:
            continue
        return candidate


def _check_output(output: Path) -> None:
    """Refuse before the music is made what could not be written after."""
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the output's name must end in {', '.join(SUFFIXES)}, not as in {output.name!r}")
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a folder; name a file")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent} to write {output.name} into; make it first")
    if not os.access(output.parent, os.W_OK):
        raise PermissionError(f"the folder {output.parent} cannot be written to; choose another with --output")


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    tqdm.write(f"musicgen-edu: {' '.join(str(message).split())}", file=sys.stderr)


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python has an error of its own for that; PyTorch says it in a RuntimeError."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in words or "out of memory" in words


def _sentence(error: BaseException) -> str:
    """An error as one line: Python's own file errors in words, a memory error with what it means here."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror.lower()}"
    if _lacks_memory(error):
        return "there is not enough memory for this; ask for a shorter duration"
    return " ".join(str(error).split())
