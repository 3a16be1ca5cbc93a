"""Seconds and peak memory of notebooks, beside their limits: `make notebook-costs`.

Each is run once from top to bottom; the seconds include Jupyter's start, the memory is that of its kernel. The limit of
seconds is meant for a machine that does nothing else: on a busy one, look at the seconds of its processors, which are
those of all cores together. The exit code is 1 if a limit is exceeded.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import Cost, measure

MAX_SECONDS, MAX_MEMORY = 60, 1.5e9  # bytes


def main(names: list[str]) -> int:
    """Print a row for every notebook at the given paths; 1 if one exceeds a limit."""
    heads = f"seconds (≤ {MAX_SECONDS})", "on processors", f"GB (≤ {MAX_MEMORY / 1e9:g})"
    print(f"{'notebook':<32}{heads[0]:>16}{heads[1]:>16}{heads[2]:>13}")
    exceeded = False
    for path in map(Path, names):
        cost = run(path)
        too_much = cost.seconds > MAX_SECONDS or cost.memory > MAX_MEMORY
        figures = f"{cost.seconds:>16.0f}{cost.processor_seconds:>16.0f}{cost.memory / 1e9:>13.2f}"
        print(f"{path.stem:<32}{figures}{'   over the limit' * too_much}", flush=True)
        exceeded |= too_much
    return int(exceeded)


def run(path: Path) -> Cost:
    """Run the notebook at `path`, which stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--to", "notebook", "--execute", f"--output-dir={folder}", "--ExecutePreprocessor.timeout=600"]
        return measure([sys.executable, "-m", "nbconvert", *options, str(path)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
