"""Run a command without a network: `python tests/offline.py command…`, on Linux.

A network namespace of its own (`unshare`) holds nothing but the loopback, which Jupyter needs to talk to its kernels.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

INSIDE = "--inside"
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # linux/sockios.h, linux/if.h
ALONE = ["unshare", "--map-root-user", "--net"]


def main(command: list[str]) -> int:
    """The exit code of `command`; 1 if the network cannot be cut off."""
    if command[0] == INSIDE:
        raise_loopback()
        os.execvp(command[1], command[1:])
    if not shutil.which("unshare") or subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode:
        sys.exit("The network cannot be cut off: `unshare --net` (util-linux) is missing or forbidden here.")
    return subprocess.run([*ALONE, sys.executable, __file__, INSIDE, *command], check=False).returncode


def raise_loopback() -> None:
    """Bring up `lo`, as `ip link set lo up` would, where `ip` is not installed; it must be the only interface."""
    names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"], f"the network is not cut off: {names}"
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
