"""Room 12: what a decoder is told besides the codes that it has written.

A text is looked at by cross-attention, at every step. Anything else may stand before the codes in the decoder's own
input, where self-attention meets it as a past (Copet et al. 2023, arXiv:2306.05284, section 2.3: so MusicGen Melody
hears its melody). Guidance compares either with the null condition, in which nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TextMask = Bool[Tensor, "batch text_tokens"] | Int[Tensor, "batch text_tokens"]  # 1 on text, 0 on padding


@dataclass(frozen=True, eq=False)
class Condition:
    """What one batch of clips is told, in the decoder's width.

    `states` and `mask` are the text's, as they are after the projection: 0 on padding. `prefix` stands before the codes
    in the decoder's input, and `null_prefix` in its place where nothing is said; without them nothing stands there.
    """

    states: Float[Tensor, "batch text_tokens model_width"]
    mask: TextMask
    prefix: Float[Tensor, "batch prefix_steps model_width"] | None = None
    null_prefix: Float[Tensor, "batch prefix_steps model_width"] | None = None

    def __post_init__(self) -> None:
        if (self.prefix is None) != (self.null_prefix is None):
            raise ValueError("A prefix needs its null_prefix, what stands there where nothing is said, and no less.")

    def __len__(self) -> int:
        """How many clips it speaks of."""
        return len(self.states)

    @property
    def prefix_steps(self) -> int:
        """How many steps of the decoder's input stand before the codes."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    def null(self) -> Condition:
        """Return the condition that says nothing: text states and mask of 0, and the null prefix.

        With a mask of 0 everywhere cross-attention gathers nothing, and having no bias it adds exactly 0.
        """
        return Condition(torch.zeros_like(self.states), torch.zeros_like(self.mask), self.null_prefix, self.null_prefix)

    def with_null(self) -> Condition:
        """Return a batch twice as large, [conditional; null]: both branches of guidance in one run of the decoder."""
        null = self.null()
        prefixes = (None, None)
        if self.prefix is not None:
            prefixes = (torch.cat([self.prefix, null.prefix]), torch.cat([self.null_prefix, null.null_prefix]))
        return Condition(torch.cat([self.states, null.states]), torch.cat([self.mask, null.mask]), *prefixes)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Condition:
        """Return the same on a device and in a precision; the mask keeps its type."""
        prefixes = (None if each is None else each.to(device, dtype) for each in (self.prefix, self.null_prefix))
        return Condition(self.states.to(device, dtype), self.mask.to(device), *prefixes)
