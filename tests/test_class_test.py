"""The class test: kernels that run a notebook at once, what they took, and what went wrong."""

from __future__ import annotations

import nbformat
import pytest

from musicgen_edu.classroom import class_test
from musicgen_edu.classroom.class_test import Class, Student, available_cores, bar_seconds, main, run_class


@pytest.fixture
def write(tmp_path):
    """A function that writes a notebook of the given cells and returns its path."""

    def written(*sources: str):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        nbformat.write(notebook, tmp_path / "small.ipynb")
        return tmp_path / "small.ipynb"

    return written


def test_two_students_finish_each_in_a_folder_of_its_own(write, tmp_path):
    path = write("held = b'x' * 60_000_000\nopen('mine.txt', 'x').close()", "sum(range(20_000_000))")
    found = run_class(path, 2)
    assert [student.failure for student in found.students] == ["", ""] and found.failures == 0
    for student in found.students:
        assert student.processor_seconds > 0.2 and student.memory > 6e7
        assert 0 < student.seconds <= found.seconds
    assert max(student.memory for student in found.students) <= found.memory
    assert found.elsewhere >= 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["small.ipynb"]


def test_a_notebook_that_fails_is_reported_with_its_cell(write, capsys):
    path = write("1 + 1", "[][3]")
    assert main([str(path), "--students=2"]) == 1
    printed = capsys.readouterr().out
    assert "alone" in printed and "failed in cell 2: IndexError: list index out of range\n" in printed
    assert run_class(path, 2).failures == 2


def test_a_kernel_that_dies_is_reported(write):
    (student,) = run_class(write("1", "import os; os._exit(1)"), 1).students
    assert student.failure == "cell 2: the kernel died, as it does when memory runs out"


def test_a_cell_that_never_ends_is_stopped(write, monkeypatch):
    monkeypatch.setattr(class_test, "CELL_SECONDS", 1)
    (student,) = run_class(write("while True: pass"), 1).students
    assert student.failure == "cell 1: it took too long and was stopped"


def test_the_table_says_whether_the_bar_is_kept(write, capsys, monkeypatch):
    path, took = write("1"), iter((10.0, 26.0, 10.0, 28.0))
    monkeypatch.setattr(class_test, "available_cores", lambda: 2)
    monkeypatch.setattr(
        class_test,
        "run_class",
        lambda _, count: Class([Student(None, 9.0, 10.0, 500_000_000)] * count, next(took), 1_500_000_000, 5.2),
    )
    assert main([str(path), "--students=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small on 2 cores" and [line.split()[0] for line in lines[2:7]] == ["alone", *"1234"]
    assert lines[-3] == "4 students: 26 s, 0 failed; together 1.50 GB at most, 0.38 GB a student"
    assert lines[-2] == "other programs took 10% of the cores meanwhile"
    assert lines[-1] == "bar: 1.35 × 4 × 10 s ÷ 2 cores = 27 s: kept"
    assert main([str(path), "--students=4"]) == 1
    assert capsys.readouterr().out.endswith("= 27 s: not kept\n")


def test_the_bar_is_what_a_class_needs_at_least_and_a_third_more():
    assert bar_seconds(6, 31.0, 2.0) == pytest.approx(1.35 * 6 * 31 / 2)
    assert 0 < available_cores() <= 4096


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--students=0", "small.ipynb"], "a class has 1 student or more, not 0"),
        (["--students=-2", "small.ipynb"], "a class has 1 student or more, not -2"),
        (["--students=some", "small.ipynb"], "invalid int value: 'some'"),
        (["missing.ipynb"], "there is no notebook missing.ipynb"),
        (["text.ipynb"], "text.ipynb is no notebook, or it is damaged"),
        (["list.ipynb"], "list.ipynb is no notebook, or it is damaged"),
    ],
)
def test_a_mistake_is_one_sentence(write, tmp_path, monkeypatch, capsys, arguments, said):
    write("1")
    (tmp_path / "text.ipynb").write_text("no JSON")
    (tmp_path / "list.ipynb").write_text("[1]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    complaint = capsys.readouterr().err
    assert stopped.value.code == 2 and said in complaint and complaint.count("\n") == 1
