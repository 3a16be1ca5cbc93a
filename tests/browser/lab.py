"""JupyterLab on loopback, serving a copy of a notebook whose outputs are cleared."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat

START_SECONDS, STOP_SECONDS = 120, 30
SETTINGS = {
    # Every cell is in the page, seen or not, and nothing comes after the last one.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@contextlib.contextmanager
def serve(notebook: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a copy of `notebook` from `folder`, which also takes all of Jupyter's own files; yield (address, token)."""
    served = folder / "notebooks"
    served.mkdir()
    _copy_cleared(notebook, served / notebook.name)
    for name, values in SETTINGS.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    own = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    environment = os.environ | {name: str(folder / value) for name, value in own.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={served}"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield _wait_for(server, folder / "runtime")
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()


def _copy_cleared(source: Path, target: Path) -> None:
    """Copy a notebook without what it has put out, so that all that the page shows was made there."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, target)


def _wait_for(server: subprocess.Popen, runtime: Path) -> tuple[str, str]:
    """The address and the token that the server writes down once it listens."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(json.JSONDecodeError):  # half written
                running = json.loads(file.read_text(encoding="utf-8"))
                return running["url"], running["token"]
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{runtime.with_name('server.log').read_text(encoding='utf-8')}")
