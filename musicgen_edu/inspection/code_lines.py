"""Where in the package a line stands: "musicgen_edu/projection.py:45", wherever the package is installed."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def source_line(function: Callable, beginning: str = "return ") -> str:
    """Return the place of the function's last line with this beginning. Raises ValueError if it has none."""
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    found = [number for number, line in enumerate(lines) if line.strip().startswith(beginning)]
    if not found:
        raise ValueError(f"No line of {function.__qualname__} begins with {beginning!r}.")
    return _place(inspect.getsourcefile(function), first + found[-1])


def error_line(error: BaseException) -> str:
    """Return the innermost place of the package that an error passed through, "" if it passed through none."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    inside = [place for place in places if PACKAGE in Path(place[0]).resolve().parents]
    return _place(*inside[-1]) if inside else ""


def _place(file: str, line: int) -> str:
    return f"{Path(file).resolve().relative_to(PACKAGE.parent).as_posix()}:{line}"
