"""Threads: what is free, not what is there; and one variable that overrules it."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from musicgen_edu._threads import container_quota, count_cores, default_threads, free_cores


@pytest.mark.parametrize(
    ("cores", "quota", "load", "threads"),
    [
        (8, math.inf, 0, 8),
        (64, 2, 0.3, 2),
        (64, 1.5, 0, 2),
        (2, math.inf, 0.4, 2),
        (2, math.inf, 1.1, 1),
        (2, 0.5, 9, 1),
    ],
)
def test_as_many_as_are_free(cores, quota, load, threads):
    assert free_cores(cores, quota, load) == threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2.0),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_containers_quota_is_read(tmp_path, files, cores):
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert container_quota(tmp_path) == cores


def test_this_machine_has_cores():
    assert 1 <= default_threads() <= count_cores() <= os.cpu_count()


@pytest.mark.parametrize("wanted", ["3", None])
def test_the_variable_decides(wanted):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if wanted:
        environment["OMP_NUM_THREADS"] = wanted
    code = "import musicgen_edu, os; print(os.environ['OMP_NUM_THREADS'])"
    threads = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()
    assert threads == wanted if wanted else 1 <= int(threads) <= count_cores()


@pytest.mark.parametrize("given", ["0", None])
def test_threads_wait_a_moment_before_they_sleep(given):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if given:
        environment["GOMP_SPINCOUNT"] = given
    code = "import musicgen_edu, os; print(os.environ['GOMP_SPINCOUNT'])"
    turns = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert turns.strip() == (given or "2000")
