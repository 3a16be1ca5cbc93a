"""What parity is held to: two right programs add up the same numbers in other orders, and differ by some rounding."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn


def in_both_precisions(model: nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Return what `compute` gives while `model`'s weights are float32, and while they are float64."""
    rounded = compute()
    model.double()
    try:
        return rounded, compute()
    finally:
        model.float()


def farthest(one: Float[Tensor, "*axes"], other: Float[Tensor, "*axes"]) -> float:
    """Return the largest difference between two tensors of one shape."""
    return float((one.detach().cpu().double() - other.detach().cpu().double()).abs().max())
