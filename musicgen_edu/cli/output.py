"""The files that a command writes: a name from the prompt, taken before the work, and given back if it fails."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from musicgen_edu.files import one_line

SUFFIXES = ".wav", ".flac", ".ogg", ".mp3"  # those of audio.FORMATS, which is loaded later


def slug(prompt: str, longest: int = 60) -> str:
    """A file name from a prompt, safe on every system: Latin letters and digits, or "music" where there are none."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain)[:longest].strip("-") or "music"
    reserved = re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", name)  # devices on Windows, whatever the suffix
    return f"music-{name}" if reserved else name


@contextmanager
def reserved(output: Path | None, prompt: str, samples: int = 1) -> Iterator[list[Path]]:
    """The files to write, one a sample: those asked for, numbered, or new ones.

    The names of new ones are taken at once, and given back on failure.
    """
    if output is not None:
        numbered = [output.with_stem(f"{output.stem}-{sample + 1}") for sample in range(samples)]
        yield [output] if samples == 1 else numbered
        return
    paths = [_take(Path(f"{slug(prompt)}.wav")) for _ in range(samples)]
    try:
        yield paths
    except BaseException:
        for path in paths:
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


def check_output(output: Path) -> None:
    """Refuse before the music is made what could not be written after."""
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the output's name must end in {', '.join(SUFFIXES)}, not as in {output.name!r}")
    name, folder = one_line(output.name), one_line(output.parent)
    if os.path.isdir(output):
        raise IsADirectoryError(f"{one_line(output)} is a folder; name a file")
    if not os.path.isdir(output.parent):
        raise FileNotFoundError(f"there is no folder {folder} to write {name} into; make it first")
    if not os.access(output.parent, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to; choose another with --output")
