"""How every file of the package is written: under a temporary name first, so that it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from musicgen_edu._checks import check_path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one go; whatever stops it on the way leaves the old file, or none, and no half one.

    Raises:
        ValueError: nothing can have such a name.
        OSError: of the fitting kind, with one sentence, where the folder cannot be written or is full.
    """
    path = real_path(path)
    # A device or a pipe would be gone. (Path's own exists() raises where a name is too long.)
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(f"Cannot write {one_line(path)}, which is a pipe or a device: choose another name.")
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or "the system refused"
        refused = f"Cannot write {one_line(path)} ({reason}): choose a folder that exists and has room."
        raise type(error)(refused) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def one_line(path: str | os.PathLike[str]) -> str:
    """A name as a sentence may hold it: line breaks and whatever else is not printed are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in os.fspath(path))


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return where a path leads: what is written to a link goes there, and the link stays.

    Raises ValueError where nothing can have such a name: it holds a null character or half a character.
    """
    name = os.fspath(check_path(path))
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError(f"No file can be named {name!r:.200}: leave out the characters that are written as \\ here.")
    return Path(os.path.realpath(name))
