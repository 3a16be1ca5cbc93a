"""The command line: `musicgen-edu generate "peaceful piano melody"` and its sisters.

A mistake of the user's ends in one sentence on stderr and exit code 2; Ctrl-C ends in exit code 130.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

import musicgen_edu
from musicgen_edu._arguments import Parser, outlive_readers, stop_politely
from musicgen_edu.cli.generate import EXAMPLES, add_generate
from musicgen_edu.files import one_line

# Commands whose own module reads the rest of the line, imported only when it is used: (module, its extra, summary).
DELEGATED = {
    "train": ("musicgen_edu.training.command", "train", "train every part, or teach a model your own sound"),
    "verify": ("musicgen_edu.reality.checks", "", "test by experiments whether the model is real"),
    "evaluate": ("musicgen_edu.listening.evaluation", "train", "measure how well the model follows its prompt"),
}

# Warnings are errors where -W error or PYTHONWARNINGS makes them so.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError, Warning)
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 after bad input, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a prompt's letters shows question marks
    with outlive_readers(), stop_politely(), warnings.catch_warnings():
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
    add_generate(commands, _only)
    _add_lab(commands)
    for name, (module, extra, summary) in DELEGATED.items():
        command = commands.add_parser(name, help=summary, add_help=False)
        command.set_defaults(run=lambda args, rest, module=module, extra=extra: _import(module, extra).main(rest))
    return parser


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


def _lab(args: argparse.Namespace) -> int:
    if not os.path.isdir(args.folder):
        raise FileNotFoundError(f"there is no folder {one_line(args.folder)}; name the folder of the notebooks")
    _import("jupyterlab.labapp", "notebooks").main([str(args.folder), *["--no-browser"] * args.no_browser])
    return 0


def _import(module: str, extra: str) -> ModuleType:
    """A module that needs one of the package's extras."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        mend = f'in the repository, `pip install --constraint constraints.txt --editable ".[{extra}]"` installs it'
        raise ImportError(f"{error.name} is not installed; {mend}") from error


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
