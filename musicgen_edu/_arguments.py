"""The argument parser that every command shares."""

from __future__ import annotations

import argparse


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence."""

    def error(self, message: str) -> None:
        """Print what was wrong and where help is to be found, and exit with code 2."""
        self.exit(2, f"musicgen-edu: {message} (`{self.prog} --help` explains the options)\n")
