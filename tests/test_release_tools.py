"""The scripts behind `make release-check` and `make notebook-costs`."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CONNECT = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    print("loopback")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)  # an address for documentation, RFC 5737
except OSError as error:
    print(error.strerror)
"""


def run_offline(*command: str) -> subprocess.CompletedProcess:
    whole = [sys.executable, str(TESTS / "offline.py"), *command]
    return subprocess.run(whole, check=False, capture_output=True, text=True)


def test_offline_leaves_only_the_loopback():
    finished = run_offline(sys.executable, "-c", CONNECT)
    if "cannot be cut off" in finished.stderr:
        pytest.skip(finished.stderr)
    assert finished.stdout.splitlines() == ["loopback", "Network is unreachable"]
    assert run_offline(sys.executable, "-c", "raise SystemExit(3)").returncode == 3


def test_offline_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    finished = run_offline("true")
    assert finished.returncode == 1 and "`unshare --net` (util-linux) is missing" in finished.stderr


def test_measure_counts_seconds_and_memory_of_a_child():
    measure = runpy.run_path(str(TESTS / "benchmarks/measure.py"))["measure"]
    cost = measure([sys.executable, "-c", "import time; held = b'x' * 200_000_000; time.sleep(0.1)"])
    assert 0.1 < cost.seconds and 0 < cost.processor_seconds and cost.memory > 2e8
    with pytest.raises(RuntimeError, match="failed with 1:\n.*no such thing"):
        measure([sys.executable, "-c", "raise SystemExit('no such thing')"])
