"""What chance might have done: permutation tests of the experiments in `checks.py`. Pure functions on tensors.

A p-value is the share of shuffled worlds, the real one among them, that look at least as good as the real one. Where
chance alone is at work it lies below 0.01 once in a hundred times, however the numbers are distributed (Fisher 1935,
"The Design of Experiments", section 21; Phipson and Smyth 2010, arXiv:1603.05766, for counting the real world in).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

PERMUTATIONS = 1999


def grouping_test(distances: Float[Tensor, "wordings things wordings things"]) -> tuple[float, float, float]:
    """Mean distance between wordings of one thing, of two things, and the p-value of the first being the smaller.

    In a shuffled world each wording's sentences are dealt out to the things anew.
    """
    wordings, things = distances.shape[:2]
    dealt = torch.cat([_count(things).expand(1, wordings, things), _shuffles(wordings, things)])  # the real world first
    row, across = _count(wordings), ~torch.eye(wordings, dtype=torch.bool, device="cpu")
    paired = distances[row[:, None, None], dealt[:, :, None], row[:, None], dealt[:, None]]  # [worlds, w, w, things]
    same = paired[:, across].double().mean(dim=(1, 2))
    every = float(distances.transpose(1, 2)[across].double().mean())
    return float(same[0]), (every * things - float(same[0])) / (things - 1), _share_as_low(same)


def pairing_test(costs: Float[Tensor, "items partners"]) -> tuple[float, float]:
    """How much less each item's own partner costs than a partner drawn at random, and the p-value of that."""
    count = len(costs)
    worlds = torch.cat([_count(count)[None], _shuffles(count)])
    totals = costs.double()[_count(count), worlds].mean(dim=1)
    return float(costs.double().mean() - totals[0]), _share_as_low(totals)


def sign_test(gains: Float[Tensor, " items"]) -> float:
    """The p-value of a mean gain above 0, over all ways to flip the signs (Fisher's randomisation test)."""
    flips = torch.tensor([1.0, -1.0], dtype=torch.float64, device="cpu")
    signs = torch.cartesian_prod(*[flips] * len(gains)).view(-1, len(gains))
    return _share_as_low(-(signs @ gains.double()))


def _count(length: int) -> Int[Tensor, " length"]:
    return torch.arange(length, dtype=torch.long, device="cpu")


def _shuffles(*shape: int) -> Int[Tensor, "permutations ..."]:
    """Random orders of the last axis, the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.rand(PERMUTATIONS, *shape, generator=generator, dtype=torch.float32, device="cpu").argsort(dim=-1)


def _share_as_low(worlds: Float[Tensor, " worlds"]) -> float:
    """The share of worlds, the real one (the first) among them, that are as low as it; sums may differ by rounding."""
    return float((worlds <= worlds[0] + 1e-9 * worlds.abs().max()).double().mean())
