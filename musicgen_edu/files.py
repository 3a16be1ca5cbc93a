"""How every file of the package is written: under a temporary name first, so that it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one go; whatever stops it on the way leaves the old file, or none, and no half one.

    Raises:
        OSError: of the fitting kind, with one sentence, where the folder cannot be written or is full.
    """
    path = Path(os.path.realpath(path))  # a link stays one, and leads to what is written
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or "the system refused"
        raise type(error)(f"Cannot write {path} ({reason}): choose a folder that exists and has room.") from error
    finally:
        if temporary.exists():
            temporary.unlink()
