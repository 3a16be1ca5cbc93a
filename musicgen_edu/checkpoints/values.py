"""What a value of a checkpoint's config may be, before anything is computed from it."""

from __future__ import annotations

from typing import Any

_MAY_BE_ZERO = ("num_residual_layers", "num_lstm_layers", "top_k")
_LARGEST = 10**9  # of any size or setting


def checked(what: str, value: Any, kind: type) -> Any:
    """Return the value if it is one of its kind, and a size or a share that something can have.

    `what` is its name as the file has it, the part before it. Raises ValueError for any other value.
    """
    least = 0 if what.endswith(_MAY_BE_ZERO) else 1
    wanted = {
        bool: "true or false",
        int: f"a whole number from {least} to {_LARGEST:,}",
        float: "a finite number of at least 0",
        str: "a word",
        tuple: "a list of whole numbers, each at least 1",
    }[kind]
    if kind is tuple and isinstance(value, list) and value:
        return tuple(checked(f"{what} with an entry", entry, int) for entry in value)
    right = type(value) is kind or (kind is float and type(value) is int)
    if right and kind is int:
        right = least <= value <= _LARGEST
    if right and kind is float:
        right = 0 <= value <= _LARGEST
    if not right:
        raise ValueError(f"Its {what}={' '.join(repr(value).split()):.60}, which must be {wanted}.")
    return kind(value)
