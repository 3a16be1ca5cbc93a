"""What may be given where a number, codes, a path or a callback is wanted: the checks that all floors share.

Each takes what it may be, or raises TypeError or ValueError with one sentence, before anything is computed from it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

LARGEST, SMALLEST = sys.float_info.max, sys.float_info.min  # the finite numbers above 0


def check_number(wanted: str, value: object, kind: type, low: float | int, high: float | int) -> float | int:
    """Return a number of `kind` (Real or Integral) from `low` to `high` as Python's own; `wanted` says what it must be.

    True and False are none, nor are words for numbers. Raises TypeError for another kind, ValueError out of range.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{wanted}, not {value!r:.60}.")
    number = value.item() if hasattr(value, "item") else value  # numpy calls its infinite float32 no more than a float
    if not low <= number <= high:  # NaN lies nowhere
        raise ValueError(f"{wanted}, not {value!r:.60}.")
    return number


def check_codes(codes: object) -> Tensor:
    """Return codes as 64-bit numbers, which embeddings take; they may be kept in 16 bits.

    Raises TypeError unless they are a tensor of whole numbers [batch, codebooks, frames].
    """
    if isinstance(codes, Tensor) and codes.ndim == 3:
        if not codes.is_floating_point() and not codes.is_complex() and codes.dtype != torch.bool:
            return codes.long()
    found = f"{codes.dtype} {list(codes.shape)}" if isinstance(codes, Tensor) else f"a {type(codes).__name__}"
    raise TypeError(f"Codes are a tensor of whole numbers [batch, codebooks, frames], not {found}.")


def check_path(path: object) -> Path:
    """Return a path. Raises TypeError for what is none, such as None or a number."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"A path is a string or a pathlib.Path, not {path!r:.60}.")
    return Path(path)


def check_progress(progress: object) -> None:
    """Raise TypeError unless it is None or can be called."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of two numbers, such as print, not {progress!r:.60}.")
