"""The class test: can so many students run a notebook at once on this machine? `make class-test STUDENTS=6`.

The notebook is run once alone, and then by as many Jupyter kernels as there are students, all started at once, each in
a folder of its own. A machine that wastes nothing needs students × the processor seconds of one ÷ cores; the bar is
1.35 times that, since a class also waits for the disk and for each other. Waiting threads that spin, too many threads
and memory that runs out all show here, and in no test of one kernel. Other programs do, too: what they took is printed.

Memory is the proportional set size (PSS): what several processes share is divided among them, so that the sum over all
students is what the machine really needs. Where the system has no such figure, memory of the process's own counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from musicgen_edu._arguments import Parser, outlive_readers
from musicgen_edu._threads import container_quota, count_cores
from musicgen_edu.files import one_line

SLACK = 1.35  # times the least that a machine without waste would need
CELL_SECONDS = 120  # that a cell may take, for each student on the machine
START_SECONDS = 60  # likewise for a kernel's start: nbclient's own limit, 60 s for any number, is too short for ten
LOOK_SECONDS = 1.0  # between two looks at the kernels' memory
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of tracebacks


@dataclass
class Student:
    """A kernel that runs the notebook, and what it took so far. `failure` is empty unless something went wrong."""

    kernel: psutil.Process | None = None
    seconds: float = 0.0
    processor_seconds: float = 0.0
    memory: int = 0  # bytes of PSS, at the most
    failure: str = ""

    def look(self) -> int:
        """Note what the kernel and its children have taken until now; return the bytes that they hold."""
        held = 0
        with suppress(psutil.Error):  # it has ended, or ends just now: what was noted before counts
            family = [self.kernel, *self.kernel.children(recursive=True)] if self.kernel else []
            held = sum(_memory(process) for process in family)
            self.memory = max(self.memory, held)
            self.processor_seconds = sum(map(_processor_seconds, family)) or self.processor_seconds
        return held


@dataclass(frozen=True)
class Class:
    """What a class took: the seconds until the last had finished, and the bytes that all held at most."""

    students: list[Student]
    seconds: float
    memory: int
    elsewhere: float  # seconds of the processors that went to other programs meanwhile

    @property
    def failures(self) -> int:
        """How many did not come to the notebook's end."""
        return sum(bool(student.failure) for student in self.students)


def run_class(notebook: Path, students: int) -> Class:
    """Let so many kernels run the notebook at once. Raises what `check` and `read_notebook` raise."""
    check(students)
    read_notebook(notebook)
    return asyncio.run(_run_class(notebook, students))


def check(students: int) -> None:
    """Raise ValueError where there is nobody in the class."""
    if students < 1:
        raise ValueError(f"a class has 1 student or more, not {students}")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Open a notebook. Raises FileNotFoundError where there is none, ValueError where it is something else."""
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"there is no notebook {one_line(path)}; name one, as in notebooks/00_text_to_music.ipynb"
        )
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:  # as it raises for other JSON
        raise ValueError(f"{one_line(path)} is no notebook, or it is damaged") from error


def bar_seconds(students: int, processor_seconds: float, cores: float | int) -> float:
    """The seconds in which a class should have finished on so many cores; one takes `processor_seconds` alone."""
    return SLACK * students * processor_seconds / cores


def available_cores() -> float:
    """The cores that this process may use, fractions of them where a container grants so."""
    return float(min(count_cores(), container_quota()))


async def _run_class(notebook: Path, count: int) -> Class:
    students, most = [Student() for _ in range(count)], 0
    started, worked = time.perf_counter(), _work_of_all()
    attending = asyncio.gather(*(_attend(notebook, student, count) for student in students))
    while not attending.done():
        await asyncio.wait([attending], timeout=LOOK_SECONDS)
        most = max(most, sum(student.look() for student in students))
    attending.result()  # raises what was no student's failure
    seconds, most = time.perf_counter() - started, max(most, max(student.memory for student in students))
    own = sum(student.processor_seconds for student in students)
    return Class(students, seconds, most, max(0.0, _work_of_all() - worked - own))


async def _attend(notebook: Path, student: Student, crowd: int) -> None:
    """Run the notebook from its first cell to its last, and note what it took or why it failed."""
    started, number = time.perf_counter(), 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = NotebookClient(
            read_notebook(notebook), kernel_name="python3", resources={"metadata": {"path": folder}},
            timeout=CELL_SECONDS * crowd, startup_timeout=START_SECONDS * crowd,
        )  # fmt: skip
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            async with client.async_setup_kernel(**silent):
                student.kernel = psutil.Process(client.km.provisioner.pid)
                for number, cell in enumerate(client.nb.cells, start=1):
                    await client.async_execute_cell(cell, number - 1)
                student.look()
        except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
            student.failure = f"cell {number}: {_in_a_line(error)}" if number else _in_a_line(error)
    student.seconds = time.perf_counter() - started


def _in_a_line(error: Exception) -> str:
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {COLOURS.sub('', error.evalue).strip().partition(chr(10))[0]}"
    if isinstance(error, CellTimeoutError):
        return "it took too long and was stopped"
    if isinstance(error, DeadKernelError):
        return "the kernel died, as it does when memory runs out"
    return " ".join(str(error).split())


def _work_of_all() -> float:
    """Seconds that the machine's processors have worked, for whomever."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0)


def _processor_seconds(process: psutil.Process) -> float:
    """What a process has taken of all cores, with the children that have ended."""
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def _memory(process: psutil.Process) -> int:
    """The bytes that a process holds, its part of what it shares included."""
    found = process.memory_full_info()
    return getattr(found, "pss", found.uss)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of `make class-test`; 0 if the class keeps the bar, 1 if not, 2 after bad input."""
    parser = Parser(prog="python -m musicgen_edu.classroom.class_test", description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", type=Path, help="the notebook that the class runs")
    parser.add_argument("--students", type=int, default=6, metavar="N", help="how many run it at once (default: 6)")
    args = parser.parse_args(argv)
    try:
        return _compare(args)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _compare(args: argparse.Namespace) -> int:
    """Run one student and the class, print both, and say whether the bar is kept."""
    check(args.students)
    read_notebook(args.notebook)
    cores = available_cores()
    print(f"{args.notebook.stem} on {cores:g} cores\n{'student':<9}{'seconds':>9}{'on processors':>15}{'GB (PSS)':>10}")
    alone = run_class(args.notebook, 1)
    print(_row("alone", alone.students[0]), flush=True)
    if alone.failures:
        return 1
    crowd = run_class(args.notebook, args.students)
    bar = bar_seconds(args.students, alone.students[0].processor_seconds, cores)
    for number, student in enumerate(crowd.students, start=1):
        print(_row(str(number), student))
    kept = not crowd.failures and crowd.seconds <= bar
    held = f"together {crowd.memory / 1e9:.2f} GB at most, {crowd.memory / 1e9 / args.students:.2f} GB a student"
    print(f"{args.students} students: {crowd.seconds:.0f} s, {crowd.failures} failed; {held}")
    print(f"other programs took {crowd.elsewhere / crowd.seconds / cores:.0%} of the cores meanwhile")
    sum_in_words = f"{SLACK} × {args.students} × {alone.students[0].processor_seconds:.0f} s ÷ {cores:g} cores"
    print(f"bar: {sum_in_words} = {bar:.0f} s: {'kept' if kept else 'not kept'}")
    return int(not kept)


def _row(name: str, student: Student) -> str:
    figures = f"{student.seconds:>9.0f}{student.processor_seconds:>15.0f}{student.memory / 1e9:>10.2f}"
    return f"{name:<9}{figures}{'   failed in ' if student.failure else ''}{student.failure}"


if __name__ == "__main__":
    with outlive_readers():
        sys.exit(main())
