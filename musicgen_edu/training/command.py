"""`musicgen-edu train`: with --from, a trained model learns one thing more (room 15); without, all is trained."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Hand the arguments to the one whose they are, and return its exit code."""
    if {argument.partition("=")[0] for argument in argv} & {"--from", "--data"}:
        from musicgen_edu.training import finetuning as command  # loads peft, which takes seconds
    else:
        from musicgen_edu.training import recipe as command
    return command.main(argv)
