"""What every command shares: the parser of its arguments, and streams that may lose their reader."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence."""

    def error(self, message: str) -> None:
        """Print what was wrong and where help is to be found, and exit with code 2."""
        self.exit(2, f"musicgen-edu: {message} (`{self.prog} --help` explains the options)\n")


class Listener:
    """A stream that may lose its reader, as in `| head -1`: what is printed then is dropped, and the work goes on."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable, *words: str) -> None:
        try:
            act(*words)
        except OSError:  # a broken pipe; on Windows it has other names
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # for what waits in the buffer, too
