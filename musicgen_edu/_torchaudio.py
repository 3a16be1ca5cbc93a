"""Lets `encodec` and `transformers` import beside a torch that torchaudio's native library was not built for.

`encodec` requires torchaudio, whose wheels on the Python package index are linked against CUDA. Beside a CPU-only torch
that library does not load, `import torchaudio` raises OSError, and `encodec` and the audio models of `transformers`
fail with it. They need only torchaudio's pure-Python parts (resampling, spectrograms), so where the library really
does not load, a stub takes the place of `torchaudio._extension`, the one module that loads it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch  # noqa: F401  (loads the libraries that torchaudio's is linked against)

_EXTENSION = "torchaudio._extension"


def mend_torchaudio() -> None:
    """Stub torchaudio's native library if it is installed but cannot be loaded; leave everything else as it is."""
    if "torchaudio" not in sys.modules and _EXTENSION not in sys.modules and not _native_library_loads():
        sys.modules[_EXTENSION] = _stub()


def _native_library_loads() -> bool:
    """Whether torchaudio would import; true also where it is not installed or has no native library to load."""
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return True
    suffix = "pyd" if sys.platform == "win32" else "so"
    try:
        for library in Path(spec.origin).parent.glob(f"lib/_torchaudio*.{suffix}"):
            ctypes.CDLL(str(library))  # what torchaudio itself does
    except OSError:
        return False
    return True


def _stub() -> ModuleType:
    """What torchaudio's pure-Python modules look up in `torchaudio._extension`."""
    stub = ModuleType(_EXTENSION, "Stands in for torchaudio's native library, which could not be loaded.")
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub._IS_ALIGN_AVAILABLE = False
    stub._check_cuda_version = lambda: None
    stub.fail_if_no_align = lambda function: function
    return stub
