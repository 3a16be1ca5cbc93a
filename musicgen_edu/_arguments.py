"""What every command shares: the parser of its arguments, and streams that may lose their reader."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence."""

    def error(self, message: str) -> None:
        """Print what was wrong and where help is to be found, and exit with code 2."""
        self.exit(2, f"musicgen-edu: {message} (`{self.prog} --help` explains the options)\n")


@contextmanager
def outlive_readers() -> Iterator[None]:
    """Within, whatever reads stdout or stderr may leave, as in `| head -1`: the rest is dropped, and the work goes on.

    What waits in the buffers is written before it ends: at Python's own exit a lost reader would be an error. A stream
    that was closed from the start, as by `>&-`, drops all.
    """
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = (_Listener(stream or nowhere) for stream in (sys.stdout, sys.stderr))
        with redirect_stdout(out), redirect_stderr(err):
            try:
                yield
            finally:
                out.flush()
                err.flush()


@contextmanager
def stop_politely() -> Iterator[None]:
    """Within, a request to end (SIGTERM, as of `kill` and `timeout`) is an exit: what was begun is taken away first."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # no other may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Listener:
    """A stream whose reader may leave."""

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
